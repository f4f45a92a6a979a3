# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run goes on from: a path, or "best", "last", "auto"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from leyden.core.callbacks.exception_checkpoint import OnExceptionCheckpoint
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.checkpoint.store import Entry, find_auto, scan
from leyden.core.errors import CheckpointError, CheckpointNotFoundError, MisconfigurationException, warn
from leyden.core.session import Session

WORDS = ("best", "last", "auto")


def resolve(s: Session, given: str | os.PathLike[str] | None) -> Path | None:
    """Return the checkpoint that ``ckpt_path`` means, or None for a fresh start.

    Raises:
        CheckpointError: There is no such checkpoint.
        MisconfigurationException: ``ckpt_path`` is no path and no known word.
    """
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)):
        raise MisconfigurationException(f"`ckpt_path` must be a path or one of {WORDS}; got {given!r}.")
    if given == "auto":
        entry = find_auto(folders_of_runs(s), s.module, s.trainer._say)
        return _adopt(s, entry) if entry is not None else None
    if given == "best":
        return _best(s)
    if given == "last":
        return _last(s)
    path = Path(given)
    if not path.exists():
        raise CheckpointNotFoundError(
            f"Checkpoint file not found: {path}. Use ckpt_path='auto' to go on from the newest valid one."
        )
    return path


def folders_of_runs(s: Session) -> list[Path]:
    """Return the folders where earlier runs of this script leave checkpoints."""
    folders: list[Path] = []
    for callback in s.callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.given_dirpath is not None:
            folders.append(callback.given_dirpath)
    for logger in s.loggers:
        root = getattr(logger, "root_dir", None) or _root(logger)
        if root is not None and Path(root).is_dir():
            folders += sorted(Path(root).glob("version_*/checkpoints"))
    if not s.loggers:
        folders.append(Path(s.trainer.default_root_dir) / "checkpoints")
    return folders


def _root(logger: Any) -> Path | None:
    return Path(logger.save_dir) / str(logger.name) if logger.save_dir and logger.name else None


def _adopt(s: Session, entry: Entry) -> Path:
    """Make the run go on as the one that wrote ``entry``: its id, its log versions, its files."""
    record = entry.record
    s.trainer._run_id = record["run"]
    for logger, state in zip(s.loggers, record.get("loggers", []), strict=False):
        if state.get("type") == type(logger).__qualname__ and hasattr(logger, "load_state_dict"):
            logger.load_state_dict({k: v for k, v in state.items() if k != "type"})
    s.trainer._say(f"resuming from {entry.path} (epoch {record.get('epoch')}, step {record.get('step')}).")
    return entry.path


def _best(s: Session) -> Path:
    for callback in s.callbacks:
        if isinstance(callback, ModelCheckpoint):
            if callback.best_model_path:
                return Path(callback.best_model_path)
            break
    else:
        raise MisconfigurationException(
            '`ckpt_path="best"` is set but there is no `ModelCheckpoint` among the callbacks.'
        )
    if s.flags.fast_dev_run:
        raise MisconfigurationException(
            '`ckpt_path="best"` cannot be used with `fast_dev_run=True`: it saves no checkpoints.'
        )
    raise CheckpointError(
        '`ckpt_path="best"` is set but `ModelCheckpoint` is not configured to save the best model or saved none yet.'
    )


def _last(s: Session) -> Path | None:
    found: list[tuple[float, Path]] = []
    for callback in s.callbacks:
        if isinstance(callback, OnExceptionCheckpoint) and Path(callback.ckpt_path).exists():
            found.append((Path(callback.ckpt_path).stat().st_mtime, Path(callback.ckpt_path)))
        if isinstance(callback, ModelCheckpoint):
            folder = callback.folder(s.trainer)
            names = [folder / f"{callback.CHECKPOINT_NAME_LAST}{callback.FILE_EXTENSION}"]
            found += [(p.stat().st_mtime, p) for p in names if p.exists()]
            if callback.last_model_path and Path(callback.last_model_path).exists():
                found.append((Path(callback.last_model_path).stat().st_mtime, Path(callback.last_model_path)))
            entries, _ = scan(folder)
            found += [(e.record.get("time", 0.0), e.path) for e in entries if not names[0].exists()]
    if not found:
        warn(
            "LY-C003",
            '.fit(ckpt_path="last") is set, but there is no last checkpoint available. No checkpoint will be loaded.',
        )
        return None
    return max(found)[1]
