# SPDX-License-Identifier: Apache-2.0
"""Compare the public API of the five packages with the committed snapshots: `uv run --group api tools/api [--update]`.

From version 0.1 on, an incompatible change fails unless the version says so (a new major one, before 1.0 a new minor
one) and the changelog names what changed; so does a snapshot that lags behind. Before 0.1 differences are only shown.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from changes import Changelog, breakages
from stubs import load, render

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
PACKAGES = ("core", "metrics", "loggers", "bolts", "export")


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="tools/api", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the snapshots, where the rules allow it")
    update: bool = parser.parse_args().update
    # Every package is checked before the exit code is known.
    return max([check(package, update=update) for package in PACKAGES])


def check(package: str, *, update: bool) -> int:
    """Compare one package, and write its snapshots if asked to.

    Args:
        package: Short name, such as ``"core"``.
        update: Whether to write today's API, unless the rules forbid the change.

    Returns:
        0 if nothing stands against the change, else 1.
    """
    old, new = committed(package), today(package)
    broken = breakages(old, new)
    changelog = Changelog.read(ROOT / "packages" / package / "CHANGELOG.md")
    objections = changelog.objections(broken)
    changed = old != new
    names = sum(text.count("\n\n") for text in new.values())
    outcome = "changed" if changed else "as in the snapshot"
    print(f"leyden.{package}: {names} public names in {len(new)} modules, {outcome}")
    for line in broken:
        print(f"  incompatible: {line}")
    for line in objections:
        print(f"  not allowed: {line}")
    if objections or not changed:
        return int(bool(objections))
    if update:
        write(package, new)
        return 0
    print(difference(old, new), end="")
    print("  the snapshot lags behind: run `uv run --group api tools/api --update` and commit it")
    return int(changelog.promises)


def today(package: str) -> dict[str, str]:
    """Read the API of a package from its sources.

    Args:
        package: Short name.

    Returns:
        Stub text by module.
    """
    paths = [ROOT / "packages" / name / "src" for name in PACKAGES]
    return render(load(f"leyden.{package}", paths))


def committed(package: str) -> dict[str, str]:
    """Read the snapshots of a package.

    Args:
        package: Short name.

    Returns:
        Stub text by module.
    """
    return {path.stem: path.read_text(encoding="utf-8") for path in _files(package)}


def write(package: str, texts: dict[str, str]) -> None:
    """Replace the snapshots of a package.

    Args:
        package: Short name.
        texts: Stub text by module.
    """
    SNAPSHOTS.mkdir(exist_ok=True)
    for path in _files(package):
        if path.stem not in texts:
            path.unlink()
    for module, text in texts.items():
        (SNAPSHOTS / f"{module}.txt").write_text(text, encoding="utf-8")


def difference(old: dict[str, str], new: dict[str, str]) -> str:
    """Show what changed, as a unified diff.

    Args:
        old: Stub text by module.
        new: Stub text by module.
    """
    lines: list[str] = []
    for module in sorted({*old, *new}):
        before, after = (texts.get(module, "").splitlines(keepends=True) for texts in (old, new))
        lines += difflib.unified_diff(before, after, f"{module} (snapshot)", f"{module} (today)", n=1)
    return "".join(lines)


def _files(package: str) -> list[Path]:
    return sorted([*SNAPSHOTS.glob(f"leyden.{package}.txt"), *SNAPSHOTS.glob(f"leyden.{package}.*.txt")])


if __name__ == "__main__":
    sys.exit(main())
