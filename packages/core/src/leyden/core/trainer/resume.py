# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run goes on from: a path, or "best", "last", "auto", "hpc"."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from leyden.core.callbacks.exception_checkpoint import OnExceptionCheckpoint
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.checkpoint import manifest
from leyden.core.checkpoint.store import Entry, find_auto
from leyden.core.errors import CheckpointNotFoundError, MisconfigurationException, MisconfigurationValueError, warn
from leyden.core.session import Session
from leyden.core.states import TrainerFn

WORDS = ("best", "last", "auto", "hpc")


def resolve(s: Session, given: str | os.PathLike[str] | None) -> Path | None:
    """Return the checkpoint that ``ckpt_path`` means, or None for a fresh start.

    Raises:
        CheckpointError: There is no such checkpoint.
        MisconfigurationException: ``ckpt_path`` is no path and no known word.
    """
    if given is None:
        _say_what_stands(s)
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
    if given == "hpc":
        return _hpc(s)
    path = Path(given)
    if not manifest.standing(path).exists():
        raise CheckpointNotFoundError(
            f"Checkpoint file not found: {path}. Use ckpt_path='auto' to go on from the newest valid one."
        )
    return path


def _say_what_stands(s: Session) -> None:
    """Warn if a fresh start puts its files beside those of another run."""
    if s.trainer.state.fn != TrainerFn.FITTING or s.flags.fast_dev_run:
        return
    for saver in (c for c in s.callbacks if isinstance(c, ModelCheckpoint)):
        fresh = not saver.best_model_path and not saver.last_model_path
        folder = saver.folder(s.trainer)
        if fresh and saver.save_top_k != 0 and folder.is_dir() and any(folder.iterdir()):
            warn("LY-C008", f"Checkpoint directory {folder} exists and is not empty.")


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
    asked = f'`.{s.trainer.state.fn}(ckpt_path="best")`'
    if s.flags.fast_dev_run:
        raise MisconfigurationValueError(
            f"You cannot execute {asked} with `fast_dev_run=True`. Please pass an exact checkpoint"
            " path: such a run saves none."
        )
    savers = [c for c in s.callbacks if isinstance(c, ModelCheckpoint)]
    if not savers:
        raise MisconfigurationValueError(f"{asked} is set but `ModelCheckpoint` is not configured.")
    if len(savers) > 1:
        warn(
            "LY-C010",
            f"{asked} is called with Trainer configured with multiple `ModelCheckpoint` callbacks. It will use the"
            " best checkpoint path from first checkpoint callback.",
        )
    if not savers[0].best_model_path:
        raise MisconfigurationValueError(
            f"{asked} is set but `ModelCheckpoint` is not configured to save the best model, or saved none yet."
        )
    return Path(savers[0].best_model_path)


def _last(s: Session) -> Path | None:
    found: set[Path] = set()
    for callback in s.callbacks:
        if isinstance(callback, OnExceptionCheckpoint):
            found.add(Path(callback.ckpt_path))
        if isinstance(callback, ModelCheckpoint):
            name = f"{callback.CHECKPOINT_NAME_LAST}*{callback.FILE_EXTENSION}"
            found |= {*callback.folder(s.trainer).glob(name), Path(callback.last_model_path)}
    standing = [path for path in found if manifest.stands(path)]
    if not standing:
        warn(
            "LY-C003",
            f'.{s.trainer.state.fn}(ckpt_path="last") is set, but there is no last checkpoint available. No'
            " checkpoint will be loaded.",
        )
        return None
    return max(standing, key=lambda path: manifest.standing(path).stat().st_mtime)


def _hpc(s: Session) -> Path:
    """Return the newest of the files that the reference writes when a cluster takes a job back."""
    found = {path.stem.split("_")[-1]: path for path in Path(s.trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")}
    numbered = {int(number): path for number, path in found.items() if number.isdigit()}
    if not numbered:
        raise MisconfigurationValueError(
            f'`.{s.trainer.state.fn}(ckpt_path="hpc")` is set but no HPC checkpoint was found. Please pass an exact'
            " checkpoint path."
        )
    return numbered[max(numbered)]
