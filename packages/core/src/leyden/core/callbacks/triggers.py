# SPDX-License-Identifier: Apache-2.0
"""When a run is saved: after so many steps, so much time, or so many epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from leyden.core.duration import UNITS, Duration
from leyden.core.errors import MisconfigurationException

if TYPE_CHECKING:
    from leyden.core.trainer.trainer import Trainer


class Triggers:
    """The rule of when to save; with nothing given, at every epoch.

    Args:
        every_n_train_steps: Save every this many optimiser steps; 0 or None for not.
        every_n_epochs: Save every this many epochs; 0 or None for not.
        train_time_interval: Save every this long.

    Raises:
        MisconfigurationException: A number is negative, or more than one of them is given.

    Examples:
        >>> from leyden.core.callbacks.triggers import Triggers
        >>> triggers = Triggers(every_n_epochs=2)
        >>> [triggers.epoch_is_due(epoch) for epoch in range(4)]
        [False, True, False, True]
    """

    def __init__(
        self,
        every_n_train_steps: int | str | None = None,
        every_n_epochs: int | str | None = None,
        train_time_interval: timedelta | str | None = None,
    ) -> None:
        every_n_train_steps = _count("every_n_train_steps", every_n_train_steps, "st")
        every_n_epochs = _count("every_n_epochs", every_n_epochs, "ep")
        if isinstance(train_time_interval, str):
            text, train_time_interval = train_time_interval, Duration.parse(train_time_interval).time
            if train_time_interval is None:
                raise MisconfigurationException(f"`train_time_interval` is a time, such as '30min'; got {text!r}.")
        if every_n_train_steps is None and every_n_epochs is None and train_time_interval is None:
            every_n_epochs = 1
        self.every_n_train_steps = every_n_train_steps or 0
        self.every_n_epochs = every_n_epochs or 0
        self.train_time_interval = train_time_interval
        for name in ("every_n_train_steps", "every_n_epochs"):
            if getattr(self, name) < 0:
                raise MisconfigurationException(f"Invalid value for {name}={getattr(self, name)}. Must be >= 0")
        chosen = [bool(self.every_n_train_steps), bool(self.every_n_epochs), train_time_interval is not None]
        if sum(chosen) > 1:
            raise MisconfigurationException(
                f"Combination of parameters every_n_train_steps={self.every_n_train_steps},"
                f" every_n_epochs={self.every_n_epochs} and train_time_interval={train_time_interval} should be"
                " mutually exclusive."
            )
        self._last_time = time.monotonic()

    def begin(self) -> None:
        """Start the clock."""
        self._last_time = time.monotonic()

    def batch_is_due(self, global_step: int, agree: Callable[[bool], bool] = bool) -> bool:
        """Tell whether to save after a batch; if a time is over, the next one begins.

        Args:
            global_step: Steps of the run.
            agree: What several processes do with what each reads off its own clock.
        """
        if self.train_time_interval is not None:
            over = time.monotonic() - self._last_time >= self.train_time_interval.total_seconds()
            if not agree(over):
                return False
            self._last_time = time.monotonic()
            return True
        return self.every_n_train_steps > 0 and global_step % self.every_n_train_steps == 0

    def epoch_is_due(self, epoch: int) -> bool:
        """Tell whether to save when the epoch with this number ends."""
        return self.every_n_epochs > 0 and (epoch + 1) % self.every_n_epochs == 0


def _count(name: str, given: int | str | None, unit: str) -> int | None:
    """Return a number that may be given as a text with its unit."""
    if not isinstance(given, str):
        return given
    duration = Duration.parse(given, name)
    if duration.unit != unit or not isinstance(duration.value, int):
        raise MisconfigurationException(f"`{name}` counts {UNITS[unit]}, such as '5{unit}'; got {given!r}.")
    return duration.value


def ends_with_training(trainer: Trainer) -> bool:
    """Tell whether an epoch's values are all there when its training ends, since its validation comes before that."""
    if trainer.flags.check_val_every_n_epoch != 1:
        return False
    return sum(trainer.num_val_batches) == 0 or trainer.flags.val_check_interval == 1.0


def validation_follows(trainer: Trainer) -> bool:
    """Tell whether validation comes next, since this was the last batch of an epoch that ends with it."""
    if not trainer.is_last_batch or not sum(trainer.num_val_batches):
        return False
    every = trainer.flags.check_val_every_n_epoch
    return every is None or (trainer.current_epoch + 1) % every == 0
