# SPDX-License-Identifier: Apache-2.0
"""ModelCheckpoint: when a run is saved, under which name, and which files stay."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from leyden.core.callback import Callback
from leyden.core.callbacks.naming import format_name
from leyden.core.checkpoint import file
from leyden.core.checkpoint.store import SUFFIX, link
from leyden.core.errors import Interrupted, MisconfigurationException, warn
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class ModelCheckpoint(Callback):
    """Saves the run at chosen moments and keeps the best files.

    A file that is to go is deleted only after the new one stands. ``last.ckpt`` is a second name of the newest file,
    not a copy. A run that a signal ends is saved where it is.

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
        train_time_interval: Save every this long.
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

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        self.given_dirpath = Path(dirpath).absolute() if dirpath is not None else None
        self.dirpath = str(self.given_dirpath) if self.given_dirpath is not None else None
        self.filename, self.monitor, self.verbose, self.mode = filename, monitor, verbose, mode
        self.save_last, self.save_top_k, self.save_on_exception = save_last, save_top_k, save_on_exception
        self.save_weights_only, self.auto_insert_metric_name = save_weights_only, auto_insert_metric_name
        self._save_on_train_epoch_end, self._enable_version_counter = save_on_train_epoch_end, enable_version_counter
        if every_n_train_steps is None and every_n_epochs is None and train_time_interval is None:
            every_n_epochs = 1
        self._every_n_train_steps = every_n_train_steps or 0
        self._every_n_epochs = every_n_epochs or 0
        self._train_time_interval = train_time_interval
        self._check_arguments()
        worst = float("inf") if mode == "min" else -float("inf")
        self.kth_value: Tensor = torch.tensor(worst)
        self.best_k_models: dict[str, Tensor] = {}
        self.kth_best_model_path = ""
        self.best_model_score: Tensor | None = None
        self.best_model_path = ""
        self.last_model_path = ""
        self.current_score: Tensor | None = None
        self._last_global_step_saved = 0
        self._newest = ""
        self._last_time: float | None = None

    def _check_arguments(self) -> None:
        if self.mode not in ("min", "max"):
            raise MisconfigurationException(f"`mode` can be 'min' or 'max', got {self.mode}")
        if self.save_top_k < -1:
            raise MisconfigurationException(f"Invalid value for save_top_k={self.save_top_k}. Must be >= -1")
        if self._every_n_train_steps < 0 or self._every_n_epochs < 0:
            name, value = ("every_n_train_steps", self._every_n_train_steps)
            if value >= 0:
                name, value = "every_n_epochs", self._every_n_epochs
            raise MisconfigurationException(f"Invalid value for {name}={value}. Must be >= 0")
        chosen = [bool(self._every_n_train_steps), bool(self._every_n_epochs), self._train_time_interval is not None]
        if sum(chosen) > 1:
            raise MisconfigurationException(
                f"Combination of parameters every_n_train_steps={self._every_n_train_steps},"
                f" every_n_epochs={self._every_n_epochs} and"
                f" train_time_interval={self._train_time_interval} should be mutually exclusive."
            )
        if self.monitor is None and self.save_top_k not in (-1, 0, 1):
            raise MisconfigurationException(
                f"ModelCheckpoint(save_top_k={self.save_top_k}, monitor=None) is not a valid configuration. No"
                " quantity for top_k to track."
            )

    @property
    def state_key(self) -> str:
        """Key of the state, made of what tells two instances apart."""
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._every_n_train_steps,
            every_n_epochs=self._every_n_epochs,
            train_time_interval=self._train_time_interval,
        )

    @property
    def every_n_epochs(self) -> int | None:
        """Epochs between two saves; 0 if epochs do not matter."""
        return self._every_n_epochs

    # -- moments -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder, and sweep what dead processes left half written there."""
        if stage != TrainerFn.FITTING or trainer.fast_dev_run:
            return
        folder = self.folder(trainer)
        self.dirpath = str(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MisconfigurationException(
                f"the checkpoint folder {folder} can not be made: {error.strerror or error}. Choose another one with"
                " `ModelCheckpoint(dirpath=...)` or `Trainer(default_root_dir=...)`."
            ) from error
        file.sweep(folder)
        self._last_time = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a number of steps or a time is over."""
        if self._skips(trainer):
            return
        steps_are_over = self._every_n_train_steps >= 1 and trainer.global_step % self._every_n_train_steps == 0
        interval, now = self._train_time_interval, time.monotonic()
        time_is_over = interval is not None and now - (self._last_time or now) >= interval.total_seconds()
        if steps_are_over or time_is_over:
            self._last_time = now
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a number of epochs is over."""
        if self._at_train_epoch_end(trainer):
            self._save_epoch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a number of epochs is over, with the values of this validation."""
        if not self._at_train_epoch_end(trainer):
            self._save_epoch(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the run that a signal ends, and on request the one that an exception ends."""
        if (
            trainer.fast_dev_run
            or trainer.state.fn != TrainerFn.FITTING
            or trainer.global_step == 0
            or self.dirpath is None
        ):
            return
        if isinstance(exception, Interrupted):
            path = self._save_newest(trainer)
            trainer._say(f"interrupted; the run is saved in {path}. Go on with ckpt_path='auto'.")
        elif self.save_on_exception and not self._skips(trainer):
            self._write(trainer, Path(self._free_path(self._values(trainer))))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note in the newest file that the run is finished."""
        if trainer.fast_dev_run:
            return
        last = self._last_path(trainer)
        newest = next((Path(p) for p in (self._newest, self.best_model_path) if p and Path(p).exists()), None)
        if newest is None:
            return
        linked = last.exists() and last != newest and last.samefile(newest)
        if (
            not self.save_last
            and last != newest
            and last.exists()
            and file.read_record(last).get("run") == trainer._run_id
        ):
            last.unlink()  # an earlier interruption left it; the run went on from it and is past it
            linked = False
        file.restamp(newest, finished=True)
        if linked:
            link(newest, last)

    def _at_train_epoch_end(self, trainer: Trainer) -> bool:
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        if trainer.flags.check_val_every_n_epoch != 1:
            return False
        if sum(trainer.num_val_batches) == 0:
            return True
        return trainer.flags.val_check_interval == 1.0

    def _skips(self, trainer: Trainer) -> bool:
        return (
            bool(trainer.fast_dev_run)
            or trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or self._last_global_step_saved == trainer.global_step
        )

    def _save_epoch(self, trainer: Trainer) -> None:
        if (
            not self._skips(trainer)
            and self._every_n_epochs >= 1
            and (trainer.current_epoch + 1) % self._every_n_epochs == 0
        ):
            self._save(trainer)

    # -- saving and keeping --------------------------------------------------------------------------------------------

    def _save(self, trainer: Trainer) -> None:
        values = self._values(trainer)
        saved = self._save_top_k(trainer, values) if self.save_top_k != 0 else None
        if not self.save_last:
            return
        last = self._last_path(trainer, values)
        before = self.last_model_path
        if saved is not None and saved != last:
            link(saved, last)
            self.last_model_path = str(last)
        else:
            self._write(trainer, last)
            self.last_model_path = str(last)
        if before and before != self.last_model_path:
            Path(before).unlink(missing_ok=True)

    def _save_top_k(self, trainer: Trainer, values: dict[str, Tensor]) -> Path | None:
        if self.monitor is None:
            return self._save_unscored(trainer, values)
        score = values.get(self.monitor)
        if score is None:
            known = sorted(k for k in values if k not in ("epoch", "step"))
            raise MisconfigurationException(
                f"`ModelCheckpoint(monitor={self.monitor!r})` could not find the monitored key in the returned"
                f" metrics: {known}."
                f" HINT: Did you call `log({self.monitor!r}, value)` in the `LightningModule`?"
            )
        if not self.check_monitor_top_k(trainer, score):
            return None
        return self._keep(trainer, score, values)

    def _save_unscored(self, trainer: Trainer, values: dict[str, Tensor]) -> Path:
        """Save where no value is monitored: the newest file takes the place of the one before, or stands beside it."""
        previous = self.best_model_path
        path = Path(self._free_path(values, previous))
        self.current_score = None
        self.best_model_path = str(path)
        self._write(trainer, path)
        if self.save_top_k == 1 and previous and previous != str(path):
            Path(previous).unlink(missing_ok=True)
        return path

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Tell whether a score is among the best ``save_top_k``."""
        if current is None:
            return False
        if self.save_top_k == -1 or len(self.best_k_models) < self.save_top_k:
            return True
        worst = self.best_k_models[self.kth_best_model_path]
        return bool(current < worst if self.mode == "min" else current > worst)

    def _keep(self, trainer: Trainer, score: Tensor, values: dict[str, Tensor]) -> Path:
        if torch.isnan(score):
            score = torch.tensor(float("inf") if self.mode == "min" else -float("inf"))
        out = self.kth_best_model_path if len(self.best_k_models) == self.save_top_k else None
        path = Path(self._free_path(values, out))
        self.current_score = score.detach().cpu()
        if out is not None:
            self.best_k_models.pop(out)
        self.best_k_models[str(path)] = self.current_score
        worst, best = (max, min) if self.mode == "min" else (min, max)
        if len(self.best_k_models) == self.save_top_k:
            self.kth_best_model_path = worst(self.best_k_models, key=lambda p: float(self.best_k_models[p]))
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        self.best_model_path = best(self.best_k_models, key=lambda p: float(self.best_k_models[p]))
        self.best_model_score = self.best_k_models[self.best_model_path]
        self._write(trainer, path)
        if out is not None and out != str(path):
            Path(out).unlink(missing_ok=True)
        return path

    def _save_newest(self, trainer: Trainer) -> Path:
        """Save the state as it is, beside what the policies keep."""
        if self.monitor is None and self.save_top_k == 1 and not self.save_last:
            return self._save_unscored(trainer, self._values(trainer))
        path = self._last_path(trainer)
        self._write(trainer, path)
        return path

    def _write(self, trainer: Trainer, path: Path) -> None:
        trainer.save_checkpoint(path, self.save_weights_only)
        self._last_global_step_saved = trainer.global_step
        self._newest = str(path)
        if self.verbose:
            trainer.print(f"Epoch {trainer.current_epoch}, global step {trainer.global_step}: saved {path}")
        for logger in trainer.loggers:
            logger.after_save_checkpoint(self)

    # -- names ---------------------------------------------------------------------------------------------------------

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of the files."""
        if self.given_dirpath is not None:
            return self.given_dirpath
        if not trainer.loggers:
            return Path(trainer.default_root_dir) / "checkpoints"
        first = trainer.loggers[0]
        root = Path(first.save_dir) if first.save_dir is not None else Path(trainer.default_root_dir)
        version = first.version if isinstance(first.version, str) else f"version_{first.version}"
        return root / str(first.name) / version / "checkpoints"

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

    def _free_path(self, values: dict[str, Tensor], replaced: str | None = None) -> str:
        path = self.format_checkpoint_name(values)
        version = self.STARTING_VERSION
        while self._enable_version_counter and Path(path).exists() and path != replaced:
            path = self.format_checkpoint_name(values, ver=version)
            version += 1
        return path

    def _last_path(self, trainer: Trainer, values: dict[str, Tensor] | None = None) -> Path:
        known = values if values is not None else self._values(trainer)
        return Path(self.format_checkpoint_name(known, self.CHECKPOINT_NAME_LAST))

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return which files are kept, with their scores."""
        return {
            "monitor": self.monitor,
            "best_model_score": self.best_model_score,
            "best_model_path": self.best_model_path,
            "current_score": self.current_score,
            "dirpath": self.dirpath,
            "best_k_models": dict(self.best_k_models),
            "kth_best_model_path": self.kth_best_model_path,
            "kth_value": self.kth_value,
            "last_model_path": self.last_model_path,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over which files are kept, where the folder is still the same and the files still stand."""
        self.best_model_score = state_dict["best_model_score"]
        self.best_model_path = state_dict["best_model_path"]
        if state_dict.get("dirpath", self.dirpath) != self.dirpath:
            warn(
                "LY-C004",
                f"The dirpath has changed from {state_dict.get('dirpath')!r} to {self.dirpath!r}, therefore"
                " `best_model_score`,"
                " `kth_best_model_path`, `kth_value`, `last_model_path` and `best_k_models` won't be reloaded. Only"
                " `best_model_path` will be reloaded.",
            )
            return
        self.best_k_models = dict(state_dict.get("best_k_models", {}))
        self.kth_best_model_path = state_dict.get("kth_best_model_path", "")
        self.kth_value = state_dict.get("kth_value", self.kth_value)
        self.last_model_path = state_dict.get("last_model_path", "")
        self.current_score = state_dict.get("current_score")
