# SPDX-License-Identifier: Apache-2.0
"""EarlyStopping: end the training when a value no longer improves."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationException, warn
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class EarlyStoppingReason(Enum):
    """Why the training was stopped."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


class EarlyStopping(Callback):
    """Ends the training when a value has not improved for some checks.

    Args:
        monitor: Name of the value.
        min_delta: Smallest change that counts as an improvement.
        patience: How many checks without improvement are borne.
        verbose: Whether to print what happens.
        mode: ``"min"`` or ``"max"``: which values are better.
        strict: Whether a missing value is an error.
        check_finite: Whether a value that is infinite or not a number ends the training.
        stopping_threshold: End the training as soon as the value is better than this.
        divergence_threshold: End the training as soon as the value is worse than this.
        check_on_train_epoch_end: Whether to check at the end of training epochs instead of after validation; None
            decides by when validation runs.
        log_rank_zero_only: Whether only the first process prints.

    Raises:
        MisconfigurationException: ``mode`` is unknown.

    Examples:
        >>> from leyden.core.callbacks import EarlyStopping
        >>> EarlyStopping(monitor="val_loss", patience=5).mode
        'min'
    """

    monitors_metrics = True

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise MisconfigurationException(f"`mode` can be 'min' or 'max', got {mode}")
        self.monitor, self.patience, self.verbose, self.mode, self.strict = monitor, patience, verbose, mode, strict
        self.check_finite, self.log_rank_zero_only = check_finite, log_rank_zero_only
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self._check_on_train_epoch_end = check_on_train_epoch_end
        self.min_delta = abs(min_delta) if mode == "max" else -abs(min_delta)
        self.wait_count = 0
        self.stopped_epoch = 0
        self.best_score = torch.tensor(float("inf") if mode == "min" else -float("inf"))
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None

    @property
    def state_key(self) -> str:
        """Key of the state, made of what tells two instances apart."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the best value."""
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": self.stopping_reason.value,
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the count and the best value."""
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self.best_score = state_dict["best_score"]
        self.patience = state_dict["patience"]
        self.stopping_reason = EarlyStoppingReason(state_dict.get("stopping_reason", 0))
        self.stopping_reason_message = state_dict.get("stopping_reason_message")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Decide when to check."""
        if self._check_on_train_epoch_end is None:
            self._check_on_train_epoch_end = (
                trainer.flags.val_check_interval == 1.0 and trainer.flags.check_val_every_n_epoch == 1
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, if this is the moment."""
        if self._check_on_train_epoch_end and not self._skips(trainer):
            self._run_early_stopping_check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, if this is the moment."""
        if not self._check_on_train_epoch_end and not self._skips(trainer):
            self._run_early_stopping_check(trainer)

    def _skips(self, trainer: Trainer) -> bool:
        return trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or bool(trainer.fast_dev_run)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        values = trainer.callback_metrics
        if self.monitor not in values:
            message = (
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. Pass in or modify your"
                f" `EarlyStopping` callback to use any of the following: `{'`, `'.join(sorted(values))}`"
            )
            if self.strict:
                raise RuntimeError(message)
            warn("LY-E001", message)
            return
        stop, reason = self._evaluate(values[self.monitor].squeeze())
        if stop:
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch
        if reason and self.verbose:
            trainer.print(reason)

    def _better(self, a: Tensor, b: Tensor | float) -> bool:
        return bool(a < b) if self.mode == "min" else bool(a > b)

    def _evaluate(self, current: Tensor) -> tuple[bool, str | None]:
        better, worse = ("<", ">") if self.mode == "min" else (">", "<")
        if self.check_finite and not torch.isfinite(current):
            return self._stop(
                EarlyStoppingReason.NON_FINITE_METRIC,
                f"Monitored metric {self.monitor} = {current} is not finite. Previous best value was"
                f" {self.best_score:.3f}. Signaling Trainer to stop.",
            )
        if self.stopping_threshold is not None and self._better(current, self.stopping_threshold):
            return self._stop(
                EarlyStoppingReason.STOPPING_THRESHOLD,
                f"Stopping threshold reached: {self.monitor} = {current} {better} {self.stopping_threshold}."
                " Signaling Trainer to stop.",
            )
        if self.divergence_threshold is not None and self._better(-current, -self.divergence_threshold):
            return self._stop(
                EarlyStoppingReason.DIVERGENCE_THRESHOLD,
                f"Divergence threshold reached: {self.monitor} = {current} {worse} {self.divergence_threshold}."
                " Signaling Trainer to stop.",
            )
        if self._better(current - self.min_delta, self.best_score.to(current.device)):
            before, self.best_score, self.wait_count = self.best_score, current.detach().cpu(), 0
            change = (
                f" by {abs(float(before - self.best_score)):.3f} >= min_delta = {abs(self.min_delta)}"
                if torch.isfinite(before)
                else ""
            )
            return False, f"Metric {self.monitor} improved{change}. New best score: {self.best_score:.3f}"
        self.wait_count += 1
        if self.wait_count >= self.patience:
            return self._stop(
                EarlyStoppingReason.PATIENCE_EXHAUSTED,
                f"Monitored metric {self.monitor} did not improve in the last {self.wait_count} records. Best score:"
                f" {self.best_score:.3f}. Signaling Trainer to stop.",
            )
        return False, None

    def _stop(self, reason: EarlyStoppingReason, message: str) -> tuple[bool, str]:
        self.stopping_reason, self.stopping_reason_message = reason, message
        return True, message
