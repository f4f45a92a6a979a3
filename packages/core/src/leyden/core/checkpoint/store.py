# SPDX-License-Identifier: Apache-2.0
"""Folders of checkpoints: what stands in them, by the files' own records, and which one a run should go on from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from leyden.core.checkpoint import file, manifest
from leyden.core.errors import CheckpointError, DamagedCheckpointError

SUFFIX = ".ckpt"


@dataclass(frozen=True)
class Entry:
    """One file with what it says of itself."""

    path: Path
    record: dict[str, Any]

    @property
    def order(self) -> tuple[int, float]:
        """What makes one file of a run newer than another."""
        return int(self.record.get("step", 0)), float(self.record.get("time", 0.0))


def scan(folder: Path) -> tuple[list[Entry], list[DamagedCheckpointError]]:
    """Read the records of all checkpoints in a folder; a second name of one file counts once."""
    entries: list[Entry] = []
    damaged: list[DamagedCheckpointError] = []
    seen: set[tuple[int, int]] = set()
    for path in manifest.listed(folder, SUFFIX) if folder.is_dir() else []:
        try:
            status = manifest.standing(path).stat()
            if (status.st_dev, status.st_ino) in seen and status.st_ino:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries.append(Entry(path, manifest.read_record(path)))
        except DamagedCheckpointError as error:
            damaged.append(error)
        except (CheckpointError, OSError):
            continue
    return entries, damaged


def model_name(module: nn.Module) -> str:
    """Return the name of a module's class; `fully_shard` gives it one of its own, which derives from both."""
    kinds = type(module).__mro__
    return next(k for k in kinds if all(base.__name__ != "FSDPModule" for base in k.__mro__)).__qualname__


def model_digest(module: nn.Module) -> str:
    """Return a digest of the names and shapes of a module's parameters; empty if it has none yet."""
    shapes = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16] if shapes else ""


def is_of(path: Path, run: str) -> bool:
    """Tell whether the run with this id wrote a file."""
    try:
        return manifest.read_record(path).get("run") == run
    except CheckpointError:
        return False


def find_auto(folders: Iterable[Path], module: nn.Module, say: Callable[[str], None]) -> Entry | None:
    """Find the newest valid checkpoint of the newest unfinished run of this model.

    Args:
        folders: Where to look.
        module: The model that wants to go on.
        say: Told in one line each what was chosen and what was passed over.
    """
    name, digest = model_name(module), model_digest(module)
    runs: dict[str, list[Entry]] = {}
    for folder in dict.fromkeys(folders):
        entries, damaged = scan(folder)
        for error in damaged:
            say(f"passed over: {error}")
        for entry in entries:
            record = entry.record
            fits = record.get("module") == name and (not digest or record.get("model") in ("", digest))
            if "run" in record and fits:
                runs.setdefault(record["run"], []).append(entry)
            elif "run" in record:
                say(f"passed over: {entry.path} is of another model ({record.get('module')}).")
    newest_first = sorted(runs.values(), key=lambda es: max(e.record.get("time", 0.0) for e in es), reverse=True)
    for entries in newest_first:
        if any(e.record.get("finished") for e in entries):
            say(f"passed over: the run in {entries[0].path.parent} is finished.")
            return None
        for entry in sorted(entries, key=lambda e: e.order, reverse=True):
            if entry.record.get("finite") is False:
                say(f"passed over: {entry.path} holds weights that are not finite.")
                continue
            try:
                manifest.verify(entry.path)
            except CheckpointError as error:
                say(f"passed over: {error}")
                continue
            return entry
    return None


def link(target: Path, name: Path) -> None:
    """Make ``name`` a second name of ``target``, by rename: a hard link, or a symbolic one where there are none."""
    temporary = file.temporary_name(name)
    temporary.unlink(missing_ok=True)
    try:
        os.link(target, temporary)
    except OSError:
        temporary.symlink_to(os.path.relpath(target, name.parent))
    if name.is_dir() and not name.is_symlink():
        manifest.delete(name)  # a name of a folder does not take a folder's place, and the newer one stands
    temporary.replace(name)
    # renaming one name of a file onto another name of the same file is a no-op that leaves both
    temporary.unlink(missing_ok=True)
    file.sync_folder(name.parent)
