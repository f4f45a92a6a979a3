# SPDX-License-Identifier: Apache-2.0
"""Timer: how long each stage took, and the end of training after a given time."""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from leyden.core.callback import Callback
from leyden.core.duration import Duration
from leyden.core.errors import MisconfigurationException
from leyden.core.messages import tell
from leyden.core.states import RunningStage

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

_LOG = logging.getLogger(__name__)


class Interval(StrEnum):
    """When a timer looks at the clock."""

    step = "step"
    epoch = "epoch"


class Timer(Callback):
    """Measures the time of each stage, over resumed runs too, and ends the training when its time is over.

    Args:
        duration: ``"DD:HH:MM:SS"``, a text such as ``"90s"`` or ``"12h"``, a `datetime.timedelta`, a dict of its
            arguments, or None to measure only.
        interval: ``"step"`` or ``"epoch"``: when the clock is looked at.
        verbose: Whether to say why the training ends.

    Raises:
        MisconfigurationException: ``duration`` or ``interval`` is not understood.

    Examples:
        >>> from leyden.core.callbacks import Timer
        >>> Timer("00:00:30:00").time_remaining()
        1800.0
    """

    def __init__(
        self,
        duration: str | timedelta | dict[str, int] | None = None,
        interval: str = Interval.step,
        verbose: bool = True,
    ) -> None:
        if interval not in set(Interval):
            raise MisconfigurationException(
                f"Unsupported parameter value `Timer(interval={interval})`. Possible choices are: step, epoch"
            )
        self._duration = None if duration is None else _seconds(duration)
        self._interval, self._verbose = interval, verbose
        self._start: dict[str, float | None] = {str(stage): None for stage in RunningStage}
        self._end: dict[str, float | None] = {str(stage): None for stage in RunningStage}
        self._offset = 0.0

    def start_time(self, stage: str = RunningStage.TRAINING) -> float | None:
        """Return when a stage began last, in seconds of `time.monotonic`; None if it did not.

        Raises:
            ValueError: There is no such stage.
        """
        return self._start[RunningStage(stage)]

    def end_time(self, stage: str = RunningStage.TRAINING) -> float | None:
        """Return when a stage ended last, in seconds of `time.monotonic`; None if it did not.

        Raises:
            ValueError: There is no such stage.
        """
        return self._end[RunningStage(stage)]

    def time_elapsed(self, stage: str = RunningStage.TRAINING) -> float:
        """Return the seconds that a stage took so far; for training, those before a resume are counted in.

        Raises:
            ValueError: There is no such stage.
        """
        start, end = self.start_time(stage), self.end_time(stage)
        offset = self._offset if stage == RunningStage.TRAINING else 0.0
        if start is None:
            return offset
        return (time.monotonic() if end is None else end) - start + offset

    def time_remaining(self, stage: str = RunningStage.TRAINING) -> float | None:
        """Return the seconds that are left; None without a duration."""
        return None if self._duration is None else self._duration - self.time_elapsed(stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once if a resumed run has used up its time."""
        self._check(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of training."""
        self._begin(RunningStage.TRAINING)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of training."""
        self._finish(RunningStage.TRAINING)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of validation."""
        self._begin(RunningStage.VALIDATING)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of validation."""
        self._finish(RunningStage.VALIDATING)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of testing."""
        self._begin(RunningStage.TESTING)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of testing."""
        self._finish(RunningStage.TESTING)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock, if steps are meant."""
        if self._interval == Interval.step:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the clock, if epochs are meant."""
        if self._interval == Interval.epoch:
            self._check(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of each stage."""
        return {"time_elapsed": {str(stage): self.time_elapsed(stage) for stage in RunningStage}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count the seconds before the resume in."""
        self._offset = state_dict.get("time_elapsed", {}).get(str(RunningStage.TRAINING), 0.0)
        # what this object measured earlier in this process is part of the saved seconds, or of a run that is given up
        self._start[RunningStage.TRAINING] = self._end[RunningStage.TRAINING] = None

    def _begin(self, stage: RunningStage) -> None:
        self._start[stage], self._end[stage] = time.monotonic(), None

    def _finish(self, stage: RunningStage) -> None:
        self._end[stage] = time.monotonic()

    def _check(self, trainer: Trainer) -> None:
        if self._duration is None or trainer.should_stop:
            return
        if not trainer.strategy.any_decision(self.time_elapsed() >= self._duration):
            return
        trainer.should_stop = True
        if self._verbose and trainer.is_global_zero:
            elapsed = timedelta(seconds=int(self.time_elapsed()))
            tell(_LOG, f"Time limit reached. Elapsed time is {elapsed}. Signaling Trainer to stop.")


def _seconds(duration: str | timedelta | dict[str, int]) -> float:
    if isinstance(duration, str) and re.fullmatch(r"\s*[\d.]+\s*(s|min|h|d)\s*", duration):
        return float(Duration.parse(duration, "duration").value)
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, dict):
        try:
            return timedelta(**duration).total_seconds()
        except TypeError as error:
            raise MisconfigurationException(
                f"`Timer(duration={duration!r})`: the dict must hold arguments of `datetime.timedelta`, such as"
                f" {{'hours': 12}}: {error}."
            ) from error
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", duration.strip()) if isinstance(duration, str) else None
    if match is None:
        raise MisconfigurationException(
            f"`Timer(duration={duration!r})` is not a valid duration. Expected a string in the format DD:HH:MM:SS, a"
            " `datetime.timedelta` or a dict of its arguments."
        )
    days, hours, minutes, seconds = map(int, match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
