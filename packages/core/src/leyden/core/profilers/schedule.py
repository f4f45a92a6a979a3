# SPDX-License-Identifier: Apache-2.0
"""When torch's profiler records: a schedule counted for each kind of step on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerAction

from leyden.core.errors import MisconfigurationException

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class StepSchedule:
    """A schedule whose steps are training, validation, test and prediction steps, each counted on its own.

    Torch counts the steps of a profiler in one row, in which validation would shift what is recorded of training. Each
    kind of step has one cycle: when it is over, nothing more of it is recorded.

    Args:
        schedule: A schedule as `torch.profiler.schedule` makes them.

    Raises:
        MisconfigurationException: It is no function, or returns no `torch.profiler.ProfilerAction`.

    Attributes:
        step: The kind of step that ended last.

    Examples:
        >>> import torch
        >>> from leyden.core.profilers.schedule import StepSchedule
        >>> schedule = StepSchedule(torch.profiler.schedule(wait=0, warmup=1, active=1))
        >>> schedule.step = "training_step"
        >>> [schedule(0).name for _ in range(2)]
        ['RECORD_AND_SAVE', 'NONE']
    """

    def __init__(self, schedule: Callable[[int], ProfilerAction]) -> None:
        if not callable(schedule):
            raise MisconfigurationException(f"Schedule should be a callable. Found: {schedule}")
        action = schedule(0)
        if not isinstance(action, ProfilerAction):
            raise MisconfigurationException(
                f"Schedule should return a `torch.profiler.ProfilerAction`. Found: {action}"
            )
        self._schedule = schedule
        self.step: str | None = None
        self.reset()

    def reset(self) -> None:
        """Count from the beginning."""
        self.step = None
        self._counts: Counter[str] = Counter()
        self._over: set[str] = set()
        self._previous = ProfilerAction.NONE

    def __call__(self, count: int) -> ProfilerAction:
        """Return what is done until the next step ends; torch's own ``count`` is not looked at."""
        if self.step is None or self.step in self._over:
            return self._allowed(ProfilerAction.NONE)
        self._counts[self.step] += 1
        action = self._allowed(self._schedule(self._counts[self.step]))
        if action == ProfilerAction.RECORD_AND_SAVE:
            self._over.add(self.step)
        return action

    def _allowed(self, action: ProfilerAction) -> ProfilerAction:
        # torch takes a recording that ends without being saved for a mistake; between two kinds of steps it is none
        if self._previous == ProfilerAction.RECORD and action in (ProfilerAction.NONE, ProfilerAction.WARMUP):
            action = ProfilerAction.RECORD
        self._previous = action
        return action
