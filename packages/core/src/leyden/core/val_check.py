# SPDX-License-Identifier: Apache-2.0
"""When validation runs inside training."""

from __future__ import annotations

from dataclasses import dataclass

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.progress import Progress


@dataclass(frozen=True)
class ValCheck:
    """The rule of one fit.

    Attributes:
        every_batches: Batches between two validations; None for the end of an epoch only.
        every_epochs: Epochs between two epochs with validation; None to count batches across epochs.
    """

    every_batches: int | None
    every_epochs: int | None

    def due(self, p: Progress, *, stopping: bool) -> bool:
        """Tell whether validation is due after the batch that was just processed."""
        if self.every_epochs is not None and (p.epoch + 1) % self.every_epochs:
            return False
        if stopping or self.every_batches is None:
            return stopping or p.is_last_batch
        count = p.batches if self.every_epochs is None else p.batch
        return count % self.every_batches == 0


def make_val_check(interval: float | int, every_epochs: int | None, length: int | None) -> ValCheck:
    """Read ``val_check_interval``.

    Args:
        interval: The flag: a number of batches as an int, a share of the epoch as a float.
        every_epochs: The flag ``check_val_every_n_epoch``.
        length: Batches of an epoch, or None if unknown.

    Examples:
        >>> from leyden.core.val_check import make_val_check
        >>> make_val_check(0.25, 1, 10).every_batches
        2

    Raises:
        MisconfigurationException: The interval does not fit the data.
    """
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
            "When using an IterableDataset for `train_dataloader`, `Trainer(val_check_interval)` must be `1.0` or"
            f" an int. An int k specifies checking validation every k training batches; got {interval}."
        )
    return ValCheck(max(1, int(length * interval)), every_epochs)
