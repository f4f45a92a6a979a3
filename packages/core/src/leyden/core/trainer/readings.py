# SPDX-License-Identifier: Apache-2.0
"""Everything that user code reads off a trainer."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import torch

from leyden.core.callbacks.early_stopping import EarlyStopping
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.callbacks.progress.progress_bar import ProgressBar
from leyden.core.datamodule import LightningDataModule
from leyden.core.interfaces import LoggerLike
from leyden.core.loops.optimizer import LightningOptimizer
from leyden.core.module import LightningModule
from leyden.core.optimizers import LRSchedulerConfig
from leyden.core.progress import Progress
from leyden.core.states import RunningStage, TrainerStatus
from leyden.core.trainer.loaders import Loaders
from leyden.core.trainer.loops import EvaluationLoop, FitLoop
from leyden.core.trainer.placement import Placement


class Readings(Loaders, Placement):
    """What is read off a trainer: where it stands, what it works with, what was logged."""

    _default_root_dir: str
    fit_loop: FitLoop
    validate_loop: EvaluationLoop
    test_loop: EvaluationLoop
    predict_loop: EvaluationLoop
    _loggers: list[LoggerLike]
    _progress: Progress
    _module: LightningModule | None
    _ckpt_path: str | os.PathLike[str] | None
    _managed_path: str | os.PathLike[str] | None

    @property
    def current_epoch(self) -> int:
        """Number of the running epoch, from 0; after fit, the number of epochs trained."""
        return self._progress.epoch

    @property
    def global_step(self) -> int:
        """Optimiser steps taken so far, over all epochs."""
        return self._progress.global_step

    @property
    def is_last_batch(self) -> bool:
        """Whether the running batch is the last of its epoch."""
        return self._progress.is_last_batch

    @property
    def lightning_module(self) -> LightningModule | None:
        """The model of the last call."""
        return self._module

    @property
    def model(self) -> LightningModule | None:
        """The model of the last call."""
        return self._module

    @property
    def datamodule(self) -> LightningDataModule | None:
        """The data module of the last call."""
        return self._session.datamodule if self._session is not None else None

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers. Others that are set step from the next epoch on."""
        return self._session.optimizers if self._session is not None else []

    @optimizers.setter
    def optimizers(self, optimizers: list[torch.optim.Optimizer]) -> None:
        if self._session is not None:
            self._session.optimizers = optimizers

    @property
    def _step_optimizers(self) -> list[LightningOptimizer]:
        session = self._session
        if session is None:
            return []
        if [o.optimizer for o in session.step_optimizers] != session.optimizers:
            session.step_optimizers = [LightningOptimizer(o, session) for o in session.optimizers]
        return session.step_optimizers

    @property
    def lr_scheduler_configs(self) -> list[LRSchedulerConfig]:
        """The schedulers with their rules."""
        return self._session.schedulers if self._session is not None else []

    @property
    def loggers(self) -> list[LoggerLike]:
        """The loggers. Others can be set between two runs."""
        return self._loggers

    @loggers.setter
    def loggers(self, loggers: Sequence[LoggerLike] | None) -> None:
        self._loggers = list(loggers or ())

    @property
    def logger(self) -> Any:
        """The first logger, or None. Setting it leaves no other."""
        return self.loggers[0] if self.loggers else None

    @logger.setter
    def logger(self, logger: LoggerLike | None) -> None:
        self.loggers = [] if logger is None else [logger]

    @property
    def default_root_dir(self) -> str:
        """Where files go that nobody else places."""
        folder = self._default_root_dir
        return folder if "://" in folder else os.path.normpath(os.path.expanduser(folder))  # noqa: PTH111

    @property
    def log_dir(self) -> str | None:
        """Folder of the first logger's run, or ``default_root_dir``. Reading it is never a collective."""
        if not self.loggers:
            return self.default_root_dir
        first = self.loggers[0]
        return first.log_dir or first.save_dir

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first `ModelCheckpoint`, or None."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        """All `ModelCheckpoint` callbacks."""
        return [c for c in self.callbacks if isinstance(c, ModelCheckpoint)]

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        """The first `EarlyStopping`, or None."""
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[EarlyStopping]:
        """All `EarlyStopping` callbacks."""
        return [c for c in self.callbacks if isinstance(c, EarlyStopping)]

    @property
    def progress_bar_callback(self) -> ProgressBar | None:
        """The progress bar, or None."""
        return next((c for c in self.callbacks if isinstance(c, ProgressBar)), None)

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """Values that callbacks monitor, by name."""
        return self._session.book.callback_metrics if self._session is not None else {}

    def agree_on_metrics(self) -> dict[str, torch.Tensor]:
        """Reduce over all processes what was logged last, and return what can then be monitored.

        For a callback that steers by the value of a step: with several processes `callback_metrics` holds this
        process's own until then. Every process calls this, at the same place; with one process it costs nothing.

        Examples:
            >>> import leyden.core as L
            >>> class StopWhenGood(L.Callback):
            ...     def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            ...         if batch_idx % 100 == 0 and trainer.agree_on_metrics()["loss"] < 0.01:
            ...             trainer.should_stop = True
        """
        if self._session is not None:
            self._session.book.agree()
        return self.callback_metrics

    @property
    def logged_metrics(self) -> dict[str, torch.Tensor]:
        """Values that went to the loggers, by name."""
        return self._session.book.logged_metrics if self._session is not None else {}

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """Numbers that the progress bar shows, by name."""
        return self._session.book.progress_bar_metrics if self._session is not None else {}

    @property
    def ckpt_path(self) -> str | os.PathLike[str] | None:
        """The checkpoint that the last call loaded. What is set here is loaded by every call until None is set."""
        return self._ckpt_path

    @ckpt_path.setter
    def ckpt_path(self, path: str | os.PathLike[str] | None) -> None:
        self._ckpt_path = self._managed_path = path

    @property
    def interrupted(self) -> bool:
        """Whether the last call ended by an exception or a signal."""
        return self.state.status == TrainerStatus.INTERRUPTED

    @property
    def received_sigterm(self) -> bool:
        """Whether SIGTERM asked the run to end."""
        return self._session is not None and self._session.stop.signum == signal.SIGTERM

    @property
    def training(self) -> bool:
        """Whether a training step may run now."""
        return self.state.stage == RunningStage.TRAINING

    @training.setter
    def training(self, value: bool) -> None:
        self._set_stage(RunningStage.TRAINING, value)

    @property
    def validating(self) -> bool:
        """Whether validation runs, inside a fit or alone."""
        return self.state.stage == RunningStage.VALIDATING

    @validating.setter
    def validating(self, value: bool) -> None:
        self._set_stage(RunningStage.VALIDATING, value)

    @property
    def testing(self) -> bool:
        """Whether testing runs."""
        return self.state.stage == RunningStage.TESTING

    @testing.setter
    def testing(self, value: bool) -> None:
        self._set_stage(RunningStage.TESTING, value)

    @property
    def predicting(self) -> bool:
        """Whether prediction runs."""
        return self.state.stage == RunningStage.PREDICTING

    @predicting.setter
    def predicting(self, value: bool) -> None:
        self._set_stage(RunningStage.PREDICTING, value)

    @property
    def sanity_checking(self) -> bool:
        """Whether the validation batches ahead of training run."""
        return self.state.stage == RunningStage.SANITY_CHECKING

    @sanity_checking.setter
    def sanity_checking(self, value: bool) -> None:
        self._set_stage(RunningStage.SANITY_CHECKING, value)

    @property
    def evaluating(self) -> bool:
        """Whether validation or testing runs."""
        return self.state.stage is not None and self.state.stage.evaluating

    def _set_stage(self, stage: RunningStage, value: bool) -> None:
        if value:
            self.state.stage = stage
        elif self.state.stage == stage:
            self.state.stage = None
