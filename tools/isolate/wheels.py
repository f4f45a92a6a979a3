# SPDX-License-Identifier: Apache-2.0
"""Build one member of the workspace and look into what was built."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

# `uv run` names the binary it was; a plain Python falls back to the command.
UV = os.environ.get("UV", "uv")


@dataclass(frozen=True)
class Wheel:
    """A wheel that was built from its own source distribution.

    Attributes:
        package: Short name, such as ``"core"``.
        path: The file.
        version: Its version.
        siblings: Short names of the other members it depends on.
        files: Names of all files in it.
    """

    package: str
    path: Path
    version: str
    siblings: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def build(cls, package: str, root: Path, folder: Path) -> Wheel:
        """Build the source distribution, and the wheel from that, so that a file missing in either shows.

        Args:
            package: Short name.
            root: The workspace.
            folder: Where both files go.
        """
        command = [UV, "build", "--quiet", "--package", f"leyden-{package}", "--out-dir", str(folder / package)]
        subprocess.run(command, cwd=root, check=True)
        (path,) = (folder / package).glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            files = tuple(archive.namelist())
            (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
            headers = HeaderParser().parsestr(archive.read(metadata).decode())
        needs = [need for need in headers.get_all("Requires-Dist", []) if "extra ==" not in need]
        siblings = [found.group(1) for need in needs if (found := re.match(r"leyden-(\w+)", need))]
        return cls(package, path, headers["Version"], tuple(siblings), files)

    def defects(self) -> list[str]:
        """Say what the wheel holds and should not, or lacks.

        Returns:
            One line each; empty for a sound wheel.
        """
        home = f"leyden/{self.package}/"
        found = []
        if "leyden/__init__.py" in self.files:
            found.append("leyden/__init__.py would hide the other packages of the namespace")
        found += [f"{home}{name} is missing" for name in ("__init__.py", "py.typed") if home + name not in self.files]
        info = f"leyden_{self.package}-{self.version}.dist-info/"
        found += [f"{name} does not belong into it" for name in self.files if not name.startswith((home, info))]
        found += [f"{name} is a test" for name in self.files if re.search(r"(^|/)(tests?/|test_|conftest)", name)]
        return found
