# SPDX-License-Identifier: Apache-2.0
"""ModelCheckpoint: when a run is saved, under which name, and which files stay."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor

from leyden.core.callback import Callback
from leyden.core.callbacks.naming import folder_of_run, format_name
from leyden.core.callbacks.retention import Retention
from leyden.core.callbacks.triggers import Triggers, ends_with_training, validation_follows
from leyden.core.checkpoint import file, manifest
from leyden.core.checkpoint.store import SUFFIX, is_of, link
from leyden.core.errors import CheckpointError, CheckpointWriteError, Interrupted, MisconfigurationException, warn
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


def _kept(name: str) -> Any:
    """Return a property that is an attribute of what is kept."""
    return property(
        lambda saver: getattr(saver._retention, name), lambda saver, value: setattr(saver._retention, name, value)
    )


class ModelCheckpoint(Callback):
    """Saves the run at chosen moments and keeps the best files.

    A file that is to go is deleted only after the new one stands. ``last.ckpt`` is a second name of the newest file,
    not a copy; where another run left one, it is ``last-v1.ckpt``. A run that a signal ends is saved where it is.

    A value that is monitored but not there yet when a number of steps or a time is over is waited for: the save comes
    after the next validation.

    Args:
        dirpath: Folder of the files; None for the folder ``checkpoints`` of the first logger's run.
        filename: Pattern of the names, such as ``"{epoch}-{val_loss:.2f}"``; None for ``"{epoch}-{step}"``.
        monitor: Name of the value that decides which files are best; None keeps the newest.
        verbose: Whether to print what is saved.
        save_last: Whether ``last.ckpt`` always names the newest state.
        save_top_k: How many of the best files stay; -1 for all, 0 for none.
        save_on_exception: Whether to save when an exception ends the run.
        save_weights_only: Whether to leave out optimisers, schedulers and callbacks.
        mode: ``"min"`` or ``"max"``: which scores are better.
        auto_insert_metric_name: Whether names hold ``epoch=3`` instead of ``3``.
        every_n_train_steps: Save every this many optimiser steps.
        train_time_interval: Save every this long; a text such as ``"30min"`` does too.
        every_n_epochs: Save every this many epochs (1 if nothing else is asked for).
        save_on_train_epoch_end: Whether epoch saves come at the end of training epochs instead of after validation;
            None decides by when validation runs.
        enable_version_counter: Whether a name that is taken gets ``-v1`` instead of being replaced.

    Raises:
        MisconfigurationException: The arguments contradict each other.

    Examples:
        >>> from leyden.core.callbacks import ModelCheckpoint
        >>> saver = ModelCheckpoint(monitor="val_loss", save_top_k=2, filename="{epoch}-{val_loss:.3f}")
        >>> saver.format_checkpoint_name({"epoch": 4, "val_loss": 0.25})
        'epoch=4-val_loss=0.250.ckpt'
    """

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = SUFFIX
    STARTING_VERSION = 1
    monitors_metrics = True

    best_k_models: dict[str, Tensor] = _kept("best_k_models")
    best_model_path: str = _kept("best_model_path")
    best_model_score: Tensor | None = _kept("best_model_score")
    kth_best_model_path: str = _kept("kth_best_model_path")
    kth_value: Tensor = _kept("kth_value")
    current_score: Tensor | None = _kept("current_score")

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | str | None = None,
        train_time_interval: timedelta | str | None = None,
        every_n_epochs: int | str | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        self._triggers = Triggers(every_n_train_steps, every_n_epochs, train_time_interval)
        self._retention = Retention(save_top_k, mode, scored=monitor is not None)
        self.given_dirpath = Path(dirpath).absolute() if dirpath is not None else None
        self.dirpath = str(self.given_dirpath) if self.given_dirpath is not None else None
        self.filename, self.monitor, self.verbose, self.mode = filename, monitor, verbose, mode
        self.save_last, self.save_top_k, self.save_on_exception = save_last, save_top_k, save_on_exception
        self.save_weights_only, self.auto_insert_metric_name = save_weights_only, auto_insert_metric_name
        self._save_on_train_epoch_end, self._enable_version_counter = save_on_train_epoch_end, enable_version_counter
        self.last_model_path = ""
        self._last_global_step_saved = 0
        self._newest = ""
        self._failed = 0
        self._waits_for_validation = False

    @property
    def state_key(self) -> str:
        """Key of the state, made of what tells two instances apart."""
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._triggers.every_n_train_steps,
            every_n_epochs=self._triggers.every_n_epochs,
            train_time_interval=self._triggers.train_time_interval,
        )

    @property
    def every_n_epochs(self) -> int | None:
        """Epochs between two saves; 0 if epochs do not matter."""
        return self._triggers.every_n_epochs

    # -- moments -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder, and sweep what dead processes left half written there."""
        if stage != TrainerFn.FITTING or trainer.fast_dev_run:
            return
        folder = self.folder(trainer)
        self.dirpath = str(folder)
        if trainer.is_global_zero:
            file.check_writable(folder)
            manifest.sweep(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._triggers.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a number of steps or a time is over."""
        if not self._triggers.batch_is_due(trainer.global_step, trainer.strategy.any_decision):
            return
        trainer.agree_on_metrics()
        stale = not self._at_train_epoch_end(trainer) and validation_follows(trainer)
        if self.monitor is not None and (stale or self.monitor not in trainer.callback_metrics):
            self._waits_for_validation = True
        elif not self._skips(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a number of epochs is over."""
        if self._at_train_epoch_end(trainer):
            self._save_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a number of epochs is over, or if this validation was waited for."""
        if self._waits_for_validation and not self._skips(trainer):
            self._waits_for_validation = False
            self._save(trainer)
        elif not self._at_train_epoch_end(trainer):
            self._save_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the run that a signal ends, and on request the one that an exception ends."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.fast_dev_run
        if not fitting or trainer.global_step == 0 or self.dirpath is None:
            return
        if isinstance(exception, Interrupted):
            self._save_interrupted(trainer)
        elif self.save_on_exception and trainer.world_size == 1 and not self._skips(trainer):
            # of several processes only this one may have failed, and it can not save alone
            self._write(trainer, self._free_path(trainer, self._values(trainer)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last state if nothing was saved, and note in the newest file that the run is finished."""
        if trainer.fast_dev_run:
            return
        if self.save_last and not self._newest and trainer.global_step:
            self._write_last(trainer)
        trainer._saves.settle()
        last = Path(self.last_model_path) if self.save_last else self._last_path(trainer)
        newest = next((Path(p) for p in (self._newest, self.best_model_path) if p and Path(p).exists()), None)
        if newest is None or not trainer.is_global_zero:
            return
        linked = last.exists() and last != newest and last.samefile(newest)
        if not self.save_last and last != newest and last.exists() and is_of(last, trainer._run_id):
            manifest.delete(last)  # an earlier interruption left it; the run went on from it and is past it
            linked = False
        if self._failed:
            return  # what was trained since has no file: a run that goes on from this one does it again
        try:
            manifest.restamp(newest, finished=True)
        except CheckpointWriteError as error:
            warn("LY-C013", f'{error} `ckpt_path="auto"` will take the run for one that was not finished.')
        if linked:
            link(newest, last)

    def _at_train_epoch_end(self, trainer: Trainer) -> bool:
        chosen = self._save_on_train_epoch_end
        return ends_with_training(trainer) if chosen is None else chosen

    def _skips(self, trainer: Trainer) -> bool:
        return (
            bool(trainer.fast_dev_run)
            or trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or self._last_global_step_saved == trainer.global_step
        )

    def _save_epoch(self, trainer: Trainer) -> None:
        if not self._skips(trainer) and self._triggers.epoch_is_due(trainer.current_epoch):
            self._save(trainer)

    # -- saving and keeping --------------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer) -> None:
        """Save, or go on without: a disk that is full now may not be at the next save, and older files stand.

        Raises:
            CheckpointWriteError: That many saves in a row have failed.
        """
        saves = trainer._saves
        saves.settle()
        before = copy.deepcopy(self._retention), self.last_model_path, self._newest, self._last_global_step_saved

        def failed(error: CheckpointWriteError) -> None:
            self._retention, self.last_model_path, self._newest, self._last_global_step_saved = before
            self._failed += 1
            if self._failed >= trainer.flags.max_failed_saves:
                raise error
            warn(
                "LY-C012",
                f"{error} Training goes on; the run ends after {trainer.flags.max_failed_saves} failed saves in a row"
                f" (`Trainer(max_failed_saves=...)`), and this is number {self._failed}.",
            )

        try:
            self._save_as_policies_say(trainer)
        except CheckpointWriteError as error:
            failed(error)
        else:
            saves.told(self._stood, failed)

    def _stood(self) -> None:
        self._failed = 0

    def _save_as_policies_say(self, trainer: Trainer) -> None:
        values = self._values(trainer)
        before = self.last_model_path
        if self.save_last:
            # it is set first, to be part of every state that is written
            self.last_model_path = str(self._last_path(trainer, values))
        saved = self._save_top_k(trainer, values) if self.save_top_k != 0 else None
        if self.save_last:
            last = Path(self.last_model_path)
            if saved is not None and saved != last:
                if trainer.is_global_zero:
                    trainer._saves.then(partial(link, saved, last))
            else:
                self._write(trainer, last)
            self._remove(trainer, before, last)

    def _save_top_k(self, trainer: Trainer, values: dict[str, Tensor]) -> Path | None:
        if self.monitor is None:
            return self._save_unscored(trainer, values)
        score = values.get(self.monitor)
        if score is None:
            self._miss(trainer, sorted(k for k in values if k not in ("epoch", "step")))
            return None
        if not self.check_monitor_top_k(trainer, score):
            self._tell(trainer, f"{self.monitor!r} was not in top {self.save_top_k}")
            return None
        out = self._retention.outgoing
        path = self._free_path(trainer, values, out)
        self._retention.keep(str(path), score)
        best, top = self.best_k_models[self.best_model_path], len(self.best_k_models)
        self._tell(
            trainer,
            f"{self.monitor!r} reached {float(score):0.5f} (best {float(best):0.5f}), saving model to {str(path)!r} as"
            f" top {top if self.save_top_k == -1 else self.save_top_k}",
        )
        self._write(trainer, path)
        if out is not None:
            self._remove(trainer, out, path)
        return path

    def _miss(self, trainer: Trainer, known: list[str]) -> None:
        message = (
            f"`ModelCheckpoint(monitor={self.monitor!r})` could not find the monitored key in the returned metrics:"
            f" {known}. HINT: Did you call `log({self.monitor!r}, value)` in the `LightningModule`?"
        )
        if sum(trainer.num_val_batches):  # without validation, the value may come with a later epoch
            raise MisconfigurationException(message)
        warn("LY-C009", message)

    def _tell(self, trainer: Trainer, what: str) -> None:
        if self.verbose:
            trainer.print(f"Epoch {trainer.current_epoch}, global step {trainer.global_step}: {what}")

    def _save_unscored(self, trainer: Trainer, values: dict[str, Tensor]) -> Path:
        """Save where no value is monitored: the newest file takes the place of the one before, or stands beside it."""
        path = self._free_path(trainer, values, self.best_model_path)
        out = self._retention.keep_newest(str(path))
        self._tell(trainer, f"saving model to {str(path)!r}")
        self._write(trainer, path)
        if out is not None:
            self._remove(trainer, out, path)
        return path

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Tell whether a score is among the best ``save_top_k``."""
        return current is not None and self._retention.admits(current)

    def _save_interrupted(self, trainer: Trainer) -> None:
        try:
            trainer._saves.settle()
            path = self._save_newest(trainer)
        except CheckpointError as error:
            # the process is asked to end, and its exit code tells by what
            warn("LY-C015", f"the interrupted run could not be saved: {error}")
        else:
            trainer._say(f"interrupted; the run is saved in {path}. Go on with ckpt_path='auto'.")

    def _save_newest(self, trainer: Trainer) -> Path:
        """Save the state as it is, beside what the policies keep."""
        if self.monitor is None and self.save_top_k == 1 and not self.save_last:
            return self._save_unscored(trainer, self._values(trainer))
        return self._write_last(trainer)

    def _write_last(self, trainer: Trainer) -> Path:
        path = self._last_path(trainer)
        self.last_model_path = str(path)
        self._write(trainer, path)
        return path

    def _write(self, trainer: Trainer, path: Path) -> None:
        trainer.save_checkpoint(path, self.save_weights_only)
        self._last_global_step_saved = trainer.global_step
        self._newest = str(path)
        trainer._saves.told(partial(self._tell_loggers, trainer))

    def _tell_loggers(self, trainer: Trainer) -> None:
        session = trainer._session
        assert session is not None
        for logger in trainer.loggers:
            session.observers.logger(logger, "after_save_checkpoint", logger.after_save_checkpoint)(self)

    def _remove(self, trainer: Trainer, path: str, newer: Path) -> None:
        """Delete a file that another one replaced; what another run left is not this run's to delete."""
        if not path or not trainer.is_global_zero:
            return
        old = Path(path).absolute()
        resumed = trainer.ckpt_path
        borrowed = resumed is not None and Path(resumed).absolute() == old and not is_of(old, trainer._run_id)
        if old != newer and not borrowed and self.dirpath is not None and Path(self.dirpath) in old.parents:
            trainer._saves.then(partial(manifest.delete, old))

    def to_yaml(self, filepath: str | os.PathLike[str] | None = None) -> None:
        """Write the scores of the kept files, by their paths.

        Args:
            filepath: Where to; None for ``best_k_models.yaml`` beside the checkpoints.
        """
        scores = {path: float(score) for path, score in self.best_k_models.items()}
        target = Path(filepath) if filepath is not None else Path(self.dirpath or "") / "best_k_models.yaml"
        target.write_text(yaml.safe_dump(scores), encoding="utf-8")

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of the files."""
        return self.given_dirpath or folder_of_run(trainer.loggers, trainer.default_root_dir)

    def _values(self, trainer: Trainer) -> dict[str, Tensor]:
        values = dict(trainer.callback_metrics)
        values.setdefault("epoch", torch.tensor(trainer.current_epoch))
        values.setdefault("step", torch.tensor(trainer.global_step))
        for name in ("epoch", "step"):
            if values[name].is_floating_point():
                values[name] = values[name].long()
        return values

    def format_checkpoint_name(
        self, metrics: dict[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Return the path of a file for some values.

        Args:
            metrics: The values.
            filename: A pattern; None takes the callback's.
            ver: Number of the version, if the name is taken.
            prefix: Put in front of the name.
        """
        name = format_name(
            filename or self.filename or f"{{epoch}}{self.CHECKPOINT_JOIN_CHAR}{{step}}",
            metrics,
            prefix=prefix or "",
            insert_names=self.auto_insert_metric_name,
            join=self.CHECKPOINT_JOIN_CHAR,
            equals=self.CHECKPOINT_EQUALS_CHAR,
        )
        if ver is not None:
            name = self.CHECKPOINT_JOIN_CHAR.join((name, f"v{ver}"))
        name += self.FILE_EXTENSION
        return str(Path(self.dirpath) / name) if self.dirpath else name

    def _free_path(self, trainer: Trainer, values: dict[str, Tensor], replaced: str | None = None) -> Path:
        return self._unused(trainer, values, None, lambda path: str(path) == replaced)

    def _last_path(self, trainer: Trainer, values: dict[str, Tensor] | None = None) -> Path:
        def own(path: Path) -> bool:
            return str(path) == self.last_model_path or is_of(path, trainer._run_id)

        return self._unused(trainer, values or self._values(trainer), self.CHECKPOINT_NAME_LAST, own)

    def _unused(
        self, trainer: Trainer, values: dict[str, Tensor], pattern: str | None, own: Callable[[Path], bool]
    ) -> Path:
        """Return a path that stands free or may be written over: the process that writes chooses it for all."""
        path = Path(self.format_checkpoint_name(values, pattern))
        version = self.STARTING_VERSION
        while self._enable_version_counter and path.exists() and not own(path):
            path = Path(self.format_checkpoint_name(values, pattern, ver=version))
            version += 1
        return trainer.strategy.broadcast(path)

    def state_dict(self) -> dict[str, Any]:
        """Return which files are kept, with their scores."""
        own = {"monitor": self.monitor, "dirpath": self.dirpath, "last_model_path": self.last_model_path}
        return own | self._retention.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over which files are kept, where the folder is still the same."""
        self.best_model_path = state_dict["best_model_path"]
        before = state_dict.get("dirpath", self.dirpath)
        if before != self.dirpath:
            warn(
                "LY-C004",
                f"The dirpath has changed from {before!r} to {self.dirpath!r}, therefore `best_model_score`,"
                " `kth_best_model_path`, `kth_value`, `last_model_path` and `best_k_models` won't be reloaded. Only"
                " `best_model_path` will be reloaded.",
            )
            return
        self._retention.load(state_dict)
        self.last_model_path = state_dict.get("last_model_path", "")
