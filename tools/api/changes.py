# SPDX-License-Identifier: Apache-2.0
"""What changed between two stub texts, and whether the version and the changelog say so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import griffe

Version = tuple[int, ...]


def breakages(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Find what makes code written against the old texts fail against the new ones.

    Args:
        old: The committed stub text of every public module of one package; empty for a package without any.
        new: Today's.

    Returns:
        One line for each incompatible change, starting with the path of the changed name.
    """
    return [_line(found) for found in griffe.find_breaking_changes(_parse(old), _parse(new))]


def _parse(texts: dict[str, str]) -> griffe.Module:
    """Put the modules into one tree, so that a name one of them imports from another is found there."""
    collection = griffe.ModulesCollection()
    root = collection["leyden"] = griffe.Module("leyden", modules_collection=collection)
    for path, text in sorted(texts.items()):
        *parents, name = path.split(".")[1:]
        parent = root
        for step in parents:
            if step not in parent.modules:
                parent.set_member(step, griffe.Module(step, modules_collection=collection))
            parent = parent.modules[step]
        file = Path(*path.split(".")).with_suffix(".pyi")
        module = griffe.visit(name, filepath=file, code=text, parent=parent, modules_collection=collection)
        # Whatever stands in a stub is public; without the list, griffe takes imported names for private.
        module.exports = list(module.members)
        parent.set_member(name, module)
    return root


def _line(found: griffe.Breakage) -> str:
    # griffe begins with file and line of a stub, which is of no use here, and shortens the path.
    text = re.sub(r"\x1b\[\d*m", "", found.explain(griffe.ExplanationStyle.ONE_LINE))
    where, _, what = re.sub(r"^\S*:\d+: ", "", text).partition(": ")
    parameter = "".join(where.partition("(")[1:])
    return f"{found.obj.path}{parameter}: {what}"


@dataclass(frozen=True)
class Changelog:
    """The two sections of a package's changelog that decide what may change.

    Attributes:
        current: Version of the newest section.
        notes: Text of that section.
        released: Newest version that is not marked as unreleased; None if there is none.
    """

    current: Version
    notes: str
    released: Version | None

    @classmethod
    def read(cls, path: Path) -> Changelog:
        """Read a changelog whose sections start with ``## 1.2.3`` and, before a release, end with ``(unreleased)``.

        Args:
            path: The file.
        """
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        sections = re.split(r"^## +", text, flags=re.MULTILINE)[1:]
        if not sections:
            raise SystemExit(f"{path} needs a section that starts like `## 0.1.0 (unreleased)`")
        heads = [section.partition("\n")[0] for section in sections]
        released = [_version(head) for head in heads if "unreleased" not in head.lower()]
        return cls(_version(heads[0]), sections[0].partition("\n")[2], released[0] if released else None)

    @property
    def promises(self) -> bool:
        """Whether users were told to rely on a version: from 0.1 on."""
        return self.released is not None and self.released >= (0, 1)

    def objections(self, broken: list[str]) -> list[str]:
        """Say what is missing for these changes to be released.

        Args:
            broken: What `breakages` gave.

        Returns:
            One line for each thing to do; empty if the version and the changelog tell users enough.
        """
        if not broken or not self.promises or self.released is None:
            return []
        wanted = (self.released[0] + 1, 0, 0) if self.released[0] else (0, self.released[1] + 1, 0)
        lines = []
        if self.current < wanted:
            lines.append(f"an incompatible change after {_text(self.released)} needs version {_text(wanted)} or later")
        for line in broken:
            name = line.partition(":")[0].rpartition(".")[2].partition("(")[0]
            if name not in self.notes:
                lines.append(f"the changelog of {_text(self.current)} does not mention `{name}`: {line}")
        return lines


def _version(head: str) -> Version:
    found = re.match(r"\[?v?(\d+)\.(\d+)\.(\d+)", head)
    if not found:
        raise SystemExit(f"the changelog section {head!r} does not start with a version like 0.1.0")
    return tuple(int(part) for part in found.groups())


def _text(version: Version) -> str:
    return ".".join(map(str, version))
