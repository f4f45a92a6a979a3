# SPDX-License-Identifier: Apache-2.0
"""When validation runs inside training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.progress import Progress


@dataclass(slots=True)
class ValCheck:
    """The rule of one fit.

    Attributes:
        every_batches: Batches between two validations; None for the end of an epoch only.
        every_epochs: Epochs between two epochs with validation; None to count batches across epochs.
        every_seconds: Seconds between two validations, in the place of batches.
        since: When the clock was started, in seconds of `time.monotonic`: the beginning of the fit, or of this part of
            a resumed one, or the last validation.
        agree: What several processes do with what each reads off its own clock.
    """

    every_batches: int | None
    every_epochs: int | None
    every_seconds: float | None = None
    since: float = field(default_factory=lambda: time.monotonic())
    agree: Callable[[bool], bool] = bool

    def due(self, p: Progress, *, stopping: bool) -> bool:
        """Tell whether validation is due after the batch that was just processed."""
        if self.every_epochs is not None and (p.epoch + 1) % self.every_epochs:
            return False
        if self.every_seconds is not None and not stopping:
            return self._time_is_over()
        if stopping or self.every_batches is None:
            return stopping or p.is_last_batch
        count = p.batches if self.every_epochs is None else p.batch
        return count % self.every_batches == 0

    def _time_is_over(self) -> bool:
        assert self.every_seconds is not None
        if not self.agree(time.monotonic() - self.since >= self.every_seconds):
            return False
        self.since = time.monotonic()
        return True

    def validated(self) -> None:
        """Start the clock again: the time that validation took does not count."""
        if self.every_seconds is not None:
            self.since = time.monotonic()


def make_val_check(
    interval: float | int | timedelta,
    every_epochs: int | None,
    length: int | None,
    agree: Callable[[bool], bool] = bool,
) -> ValCheck:
    """Read ``val_check_interval``.

    Args:
        interval: The flag: a number of batches as an int, a share of the epoch as a float, or a time.
        every_epochs: The flag ``check_val_every_n_epoch``.
        length: Batches of an epoch, or None if unknown.
        agree: What several processes do with what each reads off its own clock.

    Examples:
        >>> from leyden.core.val_check import make_val_check
        >>> make_val_check(0.25, 1, 10).every_batches
        2

    Raises:
        MisconfigurationException: The interval does not fit the data.
    """
    if isinstance(interval, timedelta):
        return ValCheck(None, every_epochs, interval.total_seconds(), agree=agree)
    if isinstance(interval, int):
        if length is not None and interval > length and every_epochs is not None:
            raise MisconfigurationValueError(
                f"`val_check_interval` ({interval}) must be less than or equal to the number of the training batches"
                f" ({length}). If you want to disable validation set `limit_val_batches` to 0.0 instead. If you want to"
                " validate based on the total training batches, set `check_val_every_n_epoch=None`."
            )
        return ValCheck(interval, every_epochs)
    if length is None:
        if interval == 1.0:
            return ValCheck(None, every_epochs)
        raise MisconfigurationException(
            "When using an IterableDataset for `train_dataloader`, `Trainer(val_check_interval)` must be time based,"
            f" `1.0` or an int. An int k specifies checking validation every k training batches; got {interval}."
        )
    return ValCheck(max(1, int(length * interval)), every_epochs)
