# SPDX-License-Identifier: Apache-2.0
"""Saves that fail: which failures a run can live with, and how many of them in a row."""

from __future__ import annotations

from leyden.core.errors import CheckpointError, MisconfigurationValueError, warn


def is_of_the_disk(error: CheckpointError) -> bool:
    """Tell whether the disk, and not the state, is why a save failed: the next one may then succeed.

    Examples:
        >>> from leyden.core.checkpoint.failures import is_of_the_disk
        >>> from leyden.core.errors import CheckpointError
        >>> is_of_the_disk(CheckpointError("checkpoint['x'] is an object"))
        False
    """
    # torch's writer turns some errors of the file below it into a RuntimeError
    return isinstance(error.__cause__, (OSError, RuntimeError))


class FailedSaves:
    """The saves that failed one after another.

    Args:
        limit: The failure in a row that ends the run; None leaves it to the trainer, -1 lets every one pass.

    Attributes:
        in_a_row: Failures since the last save that succeeded.

    Raises:
        MisconfigurationValueError: ``limit`` is below -1.

    Examples:
        >>> from leyden.core.checkpoint.failures import FailedSaves
        >>> FailedSaves(3).in_a_row
        0
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < -1:
            raise MisconfigurationValueError(
                f"`max_failed_saves` is the failed save in a row that ends the run, or -1 for none; got {limit}."
            )
        self.limit, self.in_a_row = limit, 0

    def bear(self, error: CheckpointError, step: int, limit: int) -> None:
        """Count a failure and say it, or raise it when it is one too many.

        Args:
            error: What failed.
            step: Where the run is.
            limit: What holds where no limit of its own was given.

        Raises:
            CheckpointError: This failure is the last one that was allowed.
        """
        self.in_a_row += 1
        limit = limit if self.limit is None else self.limit
        if 0 <= limit <= self.in_a_row:
            raise error
        say_failed(error, step, self.in_a_row, f"The run ends at {limit}." if limit >= 0 else "None ends the run.")


def say_failed(error: CheckpointError, step: int, in_a_row: int, then: str) -> None:
    """Warn of a save that failed."""
    warn(
        "LY-C020",
        f"the save at step {step} failed, {in_a_row} in a row, and the run goes on without it: {error} {then} Make room,"
        " or change `max_failed_saves`.",
    )
