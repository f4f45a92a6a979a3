# SPDX-License-Identifier: Apache-2.0
"""Prove that each package stands alone: `uv run tools/isolate [--only PACKAGE ...] [--keep FOLDER]`.

Builds the five source distributions and wheels, looks into the wheels, and installs each one, with nothing but what it
depends on and the dependency group of its tests, into a fresh environment outside the workspace, where its tests run.
Third-party versions are those of the lock file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from wheels import UV, Wheel

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "metrics", "loggers", "bolts", "export")

# Run in the clean environment: the package comes from there, and the members it does not depend on are out of reach.
CHECK = """
import importlib.util, sys
package, siblings = sys.argv[1], sys.argv[2:]
found = importlib.util.find_spec(f"leyden.{package}").origin
assert found.startswith(sys.prefix), f"leyden.{package} is imported from {found}"
for name in ("core", "metrics", "loggers", "bolts", "export"):
    spec = importlib.util.find_spec(f"leyden.{name}")
    assert (spec is not None) == (name == package or name in siblings), f"leyden.{name}: {spec}"
"""


@dataclass(frozen=True)
class Result:
    """What came of one package.

    Attributes:
        wheel: What was built.
        seconds: Time for installing and testing.
        outcome: pytest's last line, or what went wrong before.
        passed: Whether everything is as it should be.
    """

    wheel: Wheel
    seconds: float
    outcome: str
    passed: bool

    def __str__(self) -> str:
        wheel = self.wheel
        size = wheel.path.stat().st_size / 1024
        name = f"leyden-{wheel.package}"
        return f"{name:16} {wheel.version:9} {size:5.0f} {len(wheel.files):5} {self.seconds:5.0f}  {self.outcome}"


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="tools/isolate", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=PACKAGES, help="test only these packages")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave environments and wheels there")
    options = parser.parse_args()
    folder = nullcontext(options.keep.resolve()) if options.keep else tempfile.TemporaryDirectory(prefix="isolate-")
    with folder as name:
        work = Path(name)
        work.mkdir(parents=True, exist_ok=True)
        constraints = lock(work)
        # All five are built: a package is installed together with those it depends on.
        wheels = {package: Wheel.build(package, ROOT, work / "dist") for package in PACKAGES}
        results = [isolate(wheels[package], wheels, constraints, work) for package in options.only]
        print(f"\n{'package':16} {'version':9} {'KiB':>5} {'files':>5} {'s':>5}  outcome")
        for result in results:
            print(result)
    return int(not all(result.passed for result in results))


def lock(work: Path) -> Path:
    """Write the versions of the lock file as constraints.

    Args:
        work: Folder to write to.

    Returns:
        The file.
    """
    path = work / "constraints.txt"
    command = [UV, "export", "--quiet", "--frozen", "--all-packages", "--all-groups", "--all-extras"]
    # torch_xla has an environment of its own, with another torch
    command += ["--no-extra", "xla", "--no-emit-workspace", "--no-hashes", "--no-annotate", "--output-file", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return path


def isolate(wheel: Wheel, wheels: dict[str, Wheel], constraints: Path, work: Path) -> Result:
    """Install one wheel into a fresh environment and run its tests there.

    Args:
        wheel: What to install.
        wheels: Every wheel by short name.
        constraints: Versions of third parties.
        work: Folder for the environment and the copied tests.
    """
    print(f"\n== leyden-{wheel.package}", flush=True)
    started = time.monotonic()
    defects = wheel.defects()
    for defect in defects:
        print(f"{wheel.path.name}: {defect}")
    outcome, passed = test(wheel, install(wheel, wheels, constraints, work), work)
    if defects:
        outcome = f"{len(defects)} defects in the wheel; {outcome}"
    return Result(wheel, time.monotonic() - started, outcome, passed and not defects)


def install(wheel: Wheel, wheels: dict[str, Wheel], constraints: Path, work: Path) -> Path:
    """Make the environment of one package.

    Args:
        wheel: What to install.
        wheels: Every wheel by short name.
        constraints: Versions of third parties.
        work: Folder for the environment.

    Returns:
        Folder of the environment's commands.
    """
    environment = work / "environments" / wheel.package
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)], check=True)
    # Given by path, a member can come neither from the workspace nor from a registry.
    files = [str(wheels[name].path) for name in (wheel.package, *wheel.siblings)]
    command = [UV, "pip", "install", "--quiet", "--no-sources", "--python", str(environment)]
    command += ["--constraint", str(constraints), "--group", f"{ROOT / 'pyproject.toml'}:test-{wheel.package}"]
    subprocess.run([*command, *files], cwd=work, check=True)
    return environment / ("Scripts" if os.name == "nt" else "bin")


def test(wheel: Wheel, commands: Path, work: Path) -> tuple[str, bool]:
    """Run the tests of one package outside the workspace, under the workspace's pytest settings.

    Args:
        wheel: What was installed.
        commands: Folder of the environment's commands.
        work: Folder for the copied tests.

    Returns:
        pytest's last line, and whether it passed.
    """
    place = work / "tests" / wheel.package
    shutil.rmtree(place, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / wheel.package, place / "tests" / wheel.package, ignore=unwanted)
    shutil.copy(ROOT / "tests" / "conftest.py", place / "tests")
    shutil.copy(ROOT / "pyproject.toml", place)
    # Without bytecode every process compiles torch anew; the other two would lead back into the workspace.
    hidden = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV"}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    check = [str(commands / "python"), "-c", CHECK, wheel.package, *wheel.siblings]
    if subprocess.run(check, cwd=place, env=environ, check=False).returncode:
        return "not isolated", False
    process = subprocess.Popen(
        [str(commands / "pytest"), "-q"], cwd=place, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    last = ""
    assert process.stdout is not None
    for raw in process.stdout:
        line = raw.decode(errors="replace")
        print(line, end="", flush=True)
        last = line.strip() or last
    return last, process.wait() == 0


if __name__ == "__main__":
    sys.exit(main())
