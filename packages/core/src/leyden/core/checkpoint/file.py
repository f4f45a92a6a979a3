# SPDX-License-Identifier: Apache-2.0
"""One checkpoint file: durable when it is written, verified when it is read, and never a way to run code.

The file is a torch zip of tensors and plain data, so `torch.load(path, weights_only=True)` reads it anywhere. One
more entry,
``leyden.json``, says what the file is (run, step, score, ...) and is read without touching the tensors. Every entry
carries a CRC, which loading verifies.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import IO, Any

import torch
from torch import Tensor

from leyden.core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    DamagedCheckpointError,
    MisconfigurationException,
    UnsafeCheckpointError,
)

RECORD = "leyden.json"
_LEAVES = (NoneType, bool, int, float, complex, str, bytes, bytearray, torch.Size, torch.dtype, torch.device)


def refuse_objects(value: Any, where: str) -> None:
    """Raise for the first part of ``value`` that only code could rebuild."""
    kind = type(value)
    if (kind is bytes and not value) or (kind is int and value.bit_length() > 2032):
        raise CheckpointError(
            f"{where} is {'empty bytes' if kind is bytes else 'an int of more than 2032 bits'}, which torch writes but"
            " does not read as plain data: store None, or a text."
        )
    if kind in _LEAVES or isinstance(value, Tensor):
        return
    if kind in (dict, OrderedDict, Counter):
        for key, item in value.items():
            refuse_objects(key, where)
            refuse_objects(item, f"{where}[{key!r}]")
    elif kind in (list, tuple, set):
        for index, item in enumerate(value):
            refuse_objects(item, f"{where}[{index}]")
    else:
        raise CheckpointError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which only code could rebuild from a file. A"
            " checkpoint holds"
            " tensors and plain data (numbers, texts, lists, tuples, dicts, sets): convert it in `state_dict` or"
            " `on_save_checkpoint`."
        )


def temporary_name(path: Path) -> Path:
    """Return the name under which ``path`` is written before it is renamed: beside it, and marked with this process."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def sweep(folder: Path) -> list[Path]:
    """Delete what dead processes of this machine left half written in ``folder``; returns what was deleted."""
    swept = []
    for left in folder.glob(f".*.{socket.gethostname()}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and int(pid) != os.getpid() and not alive(int(pid)):
            left.unlink(missing_ok=True)
            swept.append(left)
    return swept


def alive(pid: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable, where the system lets a folder be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse it; the file's own data is synced all the same
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Find out, without making it, whether files can be written into a folder.

    Raises:
        MisconfigurationException: They can not.
    """
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        why = "is not writable" if standing.is_dir() else "is no folder"
        raise MisconfigurationException(
            f"the checkpoint folder {folder} can not be made: {standing} {why}. Choose another one with"
            " `ModelCheckpoint(dirpath=...)` or `Trainer(default_root_dir=...)`."
        )


def save(path: Path, state: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at every instant ``path`` is absent, the old file, or the whole new one.

    Args:
        path: Where it will stand. Its folder is made.
        state: Tensors and plain data.
        record: What the file is, as JSON data.

    Raises:
        CheckpointError: Something in ``state`` is no plain data.
        CheckpointWriteError: The file can not be written. What stood there before is untouched.
    """
    refuse_objects(state, "checkpoint")
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            _write(file, state, record)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError, pickle.PicklingError) as error:
        _drop(temporary)
        kind = CheckpointError if isinstance(error, pickle.PicklingError) else CheckpointWriteError
        raise kind(f"could not save the checkpoint {path}: {error}. Files saved earlier are untouched.") from error
    except BaseException:
        _drop(temporary)
        raise


def _drop(temporary: Path) -> None:
    # of what broke the save there is better news than that nothing can be deleted there either
    with suppress(OSError):
        temporary.unlink()


def _write(file: IO[bytes], state: dict[str, Any], record: Mapping[str, Any]) -> None:
    with_crc = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(state, file)
    finally:
        torch.serialization.set_crc32_options(with_crc)
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/{RECORD}", json.dumps(record, sort_keys=True))


def restamp(path: Path, **changes: Any) -> None:
    """Change entries of a file's record, as durably as `save`.

    Raises:
        DamagedCheckpointError: The file has no readable record.
        CheckpointWriteError: The file can not be written.
    """
    record = {**read_record(path), **changes}
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(path.read_bytes())
        with temporary.open("r+b") as file:
            with zipfile.ZipFile(file, "a") as archive:
                info = next(i for i in archive.infolist() if i.filename.endswith(f"/{RECORD}"))
                # the record is the last entry, so the archive simply ends before it and is written on from there
                archive.filelist.remove(info)
                del archive.NameToInfo[info.filename]
                archive.start_dir = info.header_offset
                archive.writestr(info.filename, json.dumps(record, sort_keys=True))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        _drop(temporary)
        raise CheckpointWriteError(
            f"could not update the checkpoint {path}: {error}. The file is untouched."
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; empty for a file that another program wrote.

    Raises:
        CheckpointNotFoundError: There is no such file.
        DamagedCheckpointError: The file is no complete zip archive or its record is damaged.
    """
    if not path.is_file():
        raise CheckpointNotFoundError(f"Checkpoint file not found: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith(f"/{RECORD}")), None)
            record: dict[str, Any] = json.loads(archive.read(name)) if name is not None else {}
            return record
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error, NotImplementedError) as error:
        raise DamagedCheckpointError(f"the checkpoint {path} is damaged: {error}") from error


def verify(path: Path) -> None:
    """Read every byte of a file and compare it with its checksums.

    Raises:
        CheckpointNotFoundError: There is no such file.
        DamagedCheckpointError: The file is truncated or an entry does not match its checksum.
    """
    if not path.is_file():
        raise CheckpointNotFoundError(f"Checkpoint file not found: {path}")
    _verify(path, f"the checkpoint {path}", path.stat().st_size)


def _verify(source: Path | IO[bytes], what: str, size: int) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        why = "it is empty" if size == 0 else f"it is truncated or no checkpoint ({error})"
        raise DamagedCheckpointError(f"{what} ({size} bytes) is damaged: {why}.") from error
    if bad is not None:
        raise DamagedCheckpointError(f"{what} ({size} bytes) is damaged: entry {bad!r} fails its checksum.")


def load(source: Path | IO[bytes], map_location: Any = None, *, trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint after verifying it.

    Args:
        source: The file, by its path or open for reading.
        map_location: Device for the tensors, as in `torch.load`.
        trust: Whether code from the file may run. Only for files that you made.

    Raises:
        CheckpointNotFoundError: There is no such file.
        DamagedCheckpointError: The file does not match its checksums, or is no checkpoint.
        UnsafeCheckpointError: The file needs code to be rebuilt and ``trust`` is False.
    """
    what = f"the checkpoint {source}"
    if not isinstance(source, Path):
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        _verify(source, what, size)
        source.seek(0)
    elif source.is_dir():
        raise CheckpointError(f"{source} is a folder; a checkpoint is one file.")
    else:
        verify(source)
    try:
        state = torch.load(source, map_location=map_location, weights_only=not trust)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        needs = f"needs {found.group(1)}" if found else "holds more than tensors and plain data"
        raise UnsafeCheckpointError(
            f"{what} {needs}, which would run code while loading; nothing was run. If you made the file yourself, load"
            " it with trust=True and save it again."
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise DamagedCheckpointError(f"{what} is damaged: {error}") from error
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"{source} holds a {type(state).__name__}; a checkpoint holds a dict.")
    return state
