# SPDX-License-Identifier: Apache-2.0
"""Everything that user code reads off a trainer."""

from __future__ import annotations

from typing import Any

import torch

from leyden.core.callback import Callback
from leyden.core.callbacks.early_stopping import EarlyStopping
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.callbacks.progress import ProgressBar
from leyden.core.datamodule import LightningDataModule
from leyden.core.flags import Flags
from leyden.core.interfaces import LoggerLike
from leyden.core.loops.optimizer import LightningOptimizer
from leyden.core.module import LightningModule
from leyden.core.optimizers import LRSchedulerConfig
from leyden.core.progress import Progress
from leyden.core.session import Session
from leyden.core.states import RunningStage, TrainerState


class Readings:
    """The read-only face of a trainer: where it stands, what it works with, what was logged."""

    flags: Flags
    state: TrainerState
    callbacks: list[Callback]
    loggers: list[LoggerLike]
    default_root_dir: str
    _progress: Progress
    _session: Session | None
    _module: LightningModule | None
    _ckpt_path: str | None

    @property
    def current_epoch(self) -> int:
        """Number of the running epoch, from 0; after fit, the number of epochs trained."""
        return self._progress.epoch

    @property
    def global_step(self) -> int:
        """Optimiser steps taken so far, over all epochs."""
        return self._progress.global_step

    @property
    def max_epochs(self) -> int | None:
        """The flag: epochs to train, -1 for no limit."""
        return self.flags.max_epochs

    @property
    def min_epochs(self) -> int | None:
        """The flag: epochs before which a stop is not heeded."""
        return self.flags.min_epochs

    @property
    def max_steps(self) -> int:
        """The flag: optimiser steps to train, -1 for no limit."""
        return self.flags.max_steps

    @property
    def min_steps(self) -> int | None:
        """The flag: optimiser steps before which a stop is not heeded."""
        return self.flags.min_steps

    @property
    def fast_dev_run(self) -> int | bool:
        """The flag: batches to try, False for a real run."""
        return self.flags.fast_dev_run

    @property
    def log_every_n_steps(self) -> int:
        """The flag: steps between two rows of step values."""
        return self.flags.log_every_n_steps

    @property
    def accumulate_grad_batches(self) -> int:
        """The flag: batches per optimiser step. A change counts from the next epoch on."""
        return self.flags.accumulate_grad_batches

    @accumulate_grad_batches.setter
    def accumulate_grad_batches(self, value: int) -> None:
        self.flags.accumulate_grad_batches = value

    @property
    def gradient_clip_val(self) -> float | int | None:
        """The flag: where gradients are clipped."""
        return self.flags.gradient_clip_val

    @property
    def gradient_clip_algorithm(self) -> str | None:
        """The flag: how gradients are clipped."""
        return self.flags.gradient_clip_algorithm

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
        """The optimisers."""
        return self._session.optimizers if self._session is not None else []

    @property
    def _step_optimizers(self) -> list[LightningOptimizer]:
        session = self._session
        return [] if session is None else [LightningOptimizer(o, session) for o in session.optimizers]

    @property
    def lr_scheduler_configs(self) -> list[LRSchedulerConfig]:
        """The schedulers with their rules."""
        return self._session.schedulers if self._session is not None else []

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.loggers[0] if self.loggers else None

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

    @property
    def logged_metrics(self) -> dict[str, torch.Tensor]:
        """Values that went to the loggers, by name."""
        return self._session.book.logged_metrics if self._session is not None else {}

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """Numbers that the progress bar shows, by name."""
        return self._session.book.progress_bar_metrics if self._session is not None else {}

    @property
    def num_training_batches(self) -> float | int:
        """Training batches per epoch; infinite if unknown."""
        return self._session.train_batches() if self._session is not None else float("inf")

    @property
    def num_val_batches(self) -> list[float | int]:
        """Validation batches of each loader; infinite if unknown."""
        return self._session.val_batches() if self._session is not None else []

    @property
    def estimated_stepping_batches(self) -> float | int:
        """Optimiser steps that the whole fit will take; infinite if unknown."""
        batches, epochs, steps = self.num_training_batches, self.max_epochs, self.max_steps
        if batches == float("inf") or epochs is None or epochs == -1:
            return float("inf") if steps == -1 else steps
        total = -(-int(batches) // self.accumulate_grad_batches) * epochs
        return total if steps == -1 else min(total, steps)

    @property
    def train_dataloader(self) -> Any:
        """The loader of training batches, during a fit."""
        feed = self._session.train_feed if self._session is not None else None
        return feed.given if feed is not None else None

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint that the last call loaded."""
        return self._ckpt_path

    @property
    def global_rank(self) -> int:
        """Rank of this process."""
        return 0

    @property
    def local_rank(self) -> int:
        """Rank of this process on its machine."""
        return 0

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process."""
        return True

    @property
    def training(self) -> bool:
        """Whether a training step may run now."""
        return self.state.stage == RunningStage.TRAINING

    @property
    def validating(self) -> bool:
        """Whether validation runs, inside a fit or alone."""
        return self.state.stage == RunningStage.VALIDATING

    @property
    def testing(self) -> bool:
        """Whether testing runs."""
        return self.state.stage == RunningStage.TESTING

    @property
    def predicting(self) -> bool:
        """Whether prediction runs."""
        return self.state.stage == RunningStage.PREDICTING

    @property
    def sanity_checking(self) -> bool:
        """Whether the validation batches ahead of training run."""
        return self.state.stage == RunningStage.SANITY_CHECKING

    @property
    def evaluating(self) -> bool:
        """Whether validation or testing runs."""
        return self.state.stage is not None and self.state.stage.evaluating
