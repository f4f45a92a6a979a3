# SPDX-License-Identifier: Apache-2.0
"""Write beside the target and put the finished files in place, so that the target is the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from leyden.export.errors import ExportError, ExportValueError


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give an empty folder on the target's file system, and remove it with whatever is left in it."""
    if target.is_dir():
        raise ExportValueError(f"path {str(target)!r} is a folder; it must be the name of a file")
    if not target.parent.is_dir():
        raise ExportValueError(f"the folder {str(target.parent)!r} of path does not exist; create it first")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ExportError(f"can not write in {str(target.parent)!r}: {error.strerror}; nothing was changed") from error
    try:
        yield folder
    except OSError as error:
        raise ExportError(
            f"writing {str(target)!r} failed: {error.strerror or error}; what stood there before was not touched"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path, companions: Sequence[str]) -> None:
    """Move the finished files out of the staging folder, durably, the main one last.

    Companions bear names that depend on their content, so that they never overwrite those of an older file.

    Args:
        folder: The staging folder; the main file in it is named like the target.
        target: Final path of the main file.
        companions: Names of the files that the main one refers to.
    """
    for name in (*companions, target.name):
        _sync(folder / name)
        (folder / name).replace(target.parent / name)
        if name != target.name:
            _sync(target.parent)
    _sync(target.parent)


def _sync(path: Path) -> None:
    # Windows can not open a folder; its renames are durable without.
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
