# SPDX-License-Identifier: Apache-2.0
"""GradientAccumulationScheduler: another number of batches per optimiser step from some epoch on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.core.callback import Callback
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class GradientAccumulationScheduler(Callback):
    """Changes the number of batches per optimiser step by a schedule.

    Args:
        scheduling: From which epoch on (the first is 0) how many batches make one step; 1 before the first entry.

    Raises:
        MisconfigurationTypeError: The schedule is empty or no dict.
        MisconfigurationException: An epoch is no whole number from 0, or a number of batches none from 1.

    Examples:
        >>> from leyden.core.callbacks import GradientAccumulationScheduler
        >>> scheduler = GradientAccumulationScheduler({4: 2})
        >>> scheduler.get_accumulate_grad_batches(3), scheduler.get_accumulate_grad_batches(4)
        (1, 2)
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        if not isinstance(scheduling, dict) or not scheduling:
            raise MisconfigurationTypeError(
                "`scheduling` must be a dict {epoch: number of batches} with at least one entry. Empty dict cannot be"
                f" interpreted correct; got {scheduling!r}."
            )
        if any(not _whole(epoch) or epoch < 0 for epoch in scheduling):
            raise MisconfigurationException(
                f"Epoch should be an int greater than or equal to 0. Got {list(scheduling)}."
            )
        if any(not _whole(number) or number < 1 for number in scheduling.values()):
            raise MisconfigurationException(
                f"Accumulation factor should be an int greater than 0. Got {list(scheduling.values())}."
            )
        self.scheduling = {0: 1, **scheduling}
        self.epochs = sorted(self.scheduling)
        self._applied = False

    def going_to_accumulate_grad_batches(self) -> bool:
        """Tell whether the schedule ever accumulates."""
        return any(number > 1 for number in self.scheduling.values())

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """Return the number of batches per step in an epoch.

        Args:
            epoch: Number of the epoch; the first is 0.
        """
        return self.scheduling[max(first for first in self.epochs if first <= epoch)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what contradicts the schedule, and set the number of an epoch that a checkpoint left open.

        Raises:
            MisconfigurationException: The module optimises by hand.
            MisconfigurationValueError: The trainer has a number of its own.
        """
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                "Automatic gradient accumulation and the `GradientAccumulationScheduler` is not supported for manual"
                " optimization. Please remove the callback or switch to automatic optimization."
            )
        if trainer.accumulate_grad_batches != 1:
            raise MisconfigurationValueError(
                f"You have set `accumulate_grad_batches` ({trainer.accumulate_grad_batches}) and are using the"
                " `GradientAccumulationScheduler` callback. Either remove `accumulate_grad_batches` from the Trainer"
                " or remove the callback."
            )
        # an epoch that goes on in its middle has no start hook
        self._apply(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the number of the epoch."""
        self._apply(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer as it was, so that it can fit again. Not earlier: a save needs the number of its window."""
        if self._applied:
            trainer.accumulate_grad_batches, self._applied = 1, False

    def _apply(self, trainer: Trainer) -> None:
        trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(trainer.current_epoch)
        self._applied = True


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
