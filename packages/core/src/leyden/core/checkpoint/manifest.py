# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are folders of files: complete when their manifest stands, which is written last.

The functions take a single file too, which `leyden.core.checkpoint.file` knows: whoever lists, checks, marks or deletes
checkpoints need not ask which of both it has.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from leyden.core.checkpoint import file
from leyden.core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    DamagedCheckpointError,
    UnsafeCheckpointError,
)

_CHUNK = 1 << 22
_ASIDE = ".aside"


def measured(path: Path) -> dict[str, int]:
    """Return a file's size and the CRC32 of its bytes."""
    size = crc = 0
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return {"size": size, "crc32": crc}


def write(folder: Path, record: Mapping[str, Any], files: Mapping[str, Mapping[str, int]]) -> None:
    """Write the manifest of a folder, durably and in one step.

    Args:
        folder: The folder.
        record: What the checkpoint is, as JSON data.
        files: `measured` of its files by their names.
    """
    content = {"record": dict(record), "files": {name: dict(files[name]) for name in sorted(files)}}
    temporary = file.temporary_name(folder / file.RECORD)
    with temporary.open("w", encoding="utf-8") as opened:
        json.dump({**content, "crc32": _own_crc(content)}, opened, sort_keys=True, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(folder / file.RECORD)
    file.sync_folder(folder)


def _own_crc(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _read(folder: Path) -> dict[str, Any]:
    path = folder / file.RECORD
    try:
        found = json.loads(path.read_bytes())
        own = found.pop("crc32")
        files = {name: (entry["size"], entry["crc32"]) for name, entry in found["files"].items()}
        whole = own == _own_crc(found) and isinstance(found["record"], dict)
    except FileNotFoundError as error:
        raise DamagedCheckpointError(
            f"the checkpoint {folder} is damaged: it has no {file.RECORD}, which is written last. It was not written to"
            " its end, or is no checkpoint of this package."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {path} can not be read: {error}") from error
    if not whole:
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {path} fails its checksum.")
    for name in files:
        if name != Path(name).name or "\\" in name:
            raise UnsafeCheckpointError(f"{path} names a file outside of its folder: {name!r}. Nothing was read.")
    return {"record": found["record"], "files": files}


def read_record(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself.

    Raises:
        CheckpointNotFoundError: There is none.
        DamagedCheckpointError: It is not complete.
    """
    place = standing(path)
    record: dict[str, Any] = _read(place)["record"] if place.is_dir() else file.read_record(place)
    return record


def verify(path: Path, part: int = 0, parts: int = 1) -> None:
    """Read every byte of a checkpoint and compare it with its checksums.

    Args:
        path: The checkpoint.
        part: With several processes, which part of a folder this one takes.
        parts: How many parts there are.

    Raises:
        CheckpointNotFoundError: There is none.
        DamagedCheckpointError: A file is missing, truncated or altered; the error names it.
    """
    place = standing(path)
    if not place.is_dir():
        file.verify(place)
        return
    for name, (size, crc) in list(_read(place)["files"].items())[part::parts]:
        try:
            found = measured(place / name)
        except OSError as error:
            raise DamagedCheckpointError(f"the checkpoint {path} is damaged: {name} is missing ({error}).") from error
        if found["size"] != size:
            raise DamagedCheckpointError(
                f"the checkpoint {path} is damaged: {name} has {found['size']} bytes, and had {size}."
            )
        if found["crc32"] != crc:
            raise DamagedCheckpointError(f"the checkpoint {path} is damaged: {name} fails its checksum.")


def restamp(path: Path, **changes: Any) -> None:
    """Change entries of a checkpoint's record, in one durable step.

    Raises:
        DamagedCheckpointError: It has no readable record.
        CheckpointWriteError: It can not be written, and is untouched.
    """
    if not path.is_dir():
        file.restamp(path, **changes)
        return
    found = _read(path)
    files = {name: {"size": size, "crc32": crc} for name, (size, crc) in found["files"].items()}
    try:
        write(path, {**found["record"], **changes}, files)
    except OSError as error:
        file.temporary_name(path / file.RECORD).unlink(missing_ok=True)
        raise CheckpointWriteError(f"could not update the checkpoint {path}: {error}. It is untouched.") from error


# -- names -------------------------------------------------------------------------------------------------------------


def standing(path: Path) -> Path:
    """Return where a checkpoint stands: under its name, or beside it, if a process died while replacing it."""
    if not path.name:
        return path
    aside = _aside(path)
    return aside if not path.exists() and aside.exists() else path


def stands(path: Path) -> bool:
    """Tell whether there is a file, or a folder that has a manifest."""
    place = standing(path)
    return place.is_file() or (place / file.RECORD).is_file()


def listed(folder: Path, suffix: str) -> list[Path]:
    """Return the names of the checkpoints of a folder, also of one that stands beside its name."""
    aside = {path.with_name(path.name[1 : -len(_ASIDE)]) for path in folder.glob(f".*{suffix}{_ASIDE}")}
    return sorted({*folder.glob(f"*{suffix}"), *aside})


def check_replaceable(path: Path) -> None:
    """Find out whether a checkpoint may take a name.

    Raises:
        CheckpointError: A folder stands there that is no checkpoint.
    """
    if path.is_dir() and not (path / file.RECORD).is_file() and any(path.iterdir()):
        raise CheckpointError(f"{path} is a folder that is no checkpoint, and is not replaced: choose another name.")


def stand(temporary: Path, path: Path) -> None:
    """Give a complete folder its name; what had it before stands beside until then, and is deleted."""
    recover(path)
    aside = _aside(path)
    before = os.path.lexists(path)
    if before:
        path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        if before:
            aside.rename(path)
        raise
    file.sync_folder(path.parent)
    if before:
        delete(aside)


def recover(path: Path) -> None:
    """Give a checkpoint its name back that stands beside it, or delete it if a newer one has the name."""
    aside = _aside(path)
    if not os.path.lexists(aside):
        return
    if os.path.lexists(path):
        delete(aside)
    else:
        aside.rename(path)


def sweep(folder: Path) -> None:
    """Recover what dead processes left beside its name, and delete what they left half written."""
    for aside in folder.glob(f".*{_ASIDE}"):
        recover(aside.with_name(aside.name[1 : -len(_ASIDE)]))
    for left in folder.glob(f".*.{socket.gethostname()}.*.tmp"):
        pid = left.name.split(".")[-2]
        if left.is_dir() and pid.isdigit() and int(pid) != os.getpid() and not file.alive(int(pid)):
            drop(left)
    file.sweep(folder)


def delete(path: Path) -> None:
    """Delete a checkpoint, if it is there; a folder loses its name first, so that no part of one has it."""
    if path.is_dir() and not path.is_symlink():
        doomed = file.temporary_name(path)
        path.rename(doomed)
        drop(doomed)
    else:
        path.unlink(missing_ok=True)


def drop(folder: Path) -> None:
    """Delete a folder as far as that is possible."""
    with suppress(OSError):
        shutil.rmtree(folder)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_ASIDE}")


def check_found(path: Path) -> Path:
    """Return where a checkpoint stands.

    Raises:
        CheckpointNotFoundError: There is none.
    """
    place = standing(path)
    if not place.exists():
        raise CheckpointNotFoundError(f"Checkpoint file not found: {path}")
    return place
