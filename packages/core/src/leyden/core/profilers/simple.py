# SPDX-License-Identifier: Apache-2.0
"""SimpleProfiler: how often each action ran, and how long it took."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Sequence

from leyden.core.profilers.profiler import Profiler
from leyden.core.table import render


class SimpleProfiler(Profiler):
    """Measures the duration of every action; the report has their means and totals, the dearest first.

    Args:
        dirpath: Folder of the report; the trainer's ``log_dir`` if None.
        filename: Name of the report, without ``.txt``. Without it, the report is logged and not written to a file.
        extended: Whether the report has the number of calls and the share of the whole time too.

    Attributes:
        recorded_durations: The seconds of every call, by action.
        current_actions: When each running action began.

    Examples:
        >>> from leyden.core.profilers import SimpleProfiler
        >>> profiler = SimpleProfiler()
        >>> with profiler.profile("load"):
        ...     pass
        >>> len(profiler.recorded_durations["load"])
        1
    """

    def __init__(
        self, dirpath: str | os.PathLike[str] | None = None, filename: str | None = None, extended: bool = True
    ) -> None:
        super().__init__(dirpath=dirpath, filename=filename)
        self.extended = extended
        self.current_actions: dict[str, float] = {}
        self.recorded_durations: dict[str, list[float]] = defaultdict(list)
        self.start_time = time.perf_counter()

    def start(self, action_name: str) -> None:
        """Begin to measure an action.

        Raises:
            ValueError: The action runs already.
        """
        if action_name in self.current_actions:
            raise ValueError(f"Attempted to start {action_name} which has already started.")
        self.current_actions[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """End the measurement of an action.

        Raises:
            ValueError: The action does not run.
        """
        end = time.perf_counter()
        if action_name not in self.current_actions:
            raise ValueError(f"Attempting to stop recording an action ({action_name}) which was never started.")
        self.recorded_durations[action_name].append(end - self.current_actions.pop(action_name))

    def summary(self) -> str:
        """Return the table of all actions."""
        whole = time.perf_counter() - self.start_time
        rows = [(action, len(times), math.fsum(times)) for action, times in self.recorded_durations.items()]
        header: Sequence[str]
        body: list[Sequence[str]]
        if self.extended:
            header = ("Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %")
            calls = sum(count for _, count, _ in rows)
            body = [("Total", "-", str(calls), f"{whole:.5}", "100 %")]
            rows.sort(key=lambda row: row[2], reverse=True)
            for action, count, total in rows:
                body.append((action, f"{total / count:.5}", str(count), f"{total:.5}", f"{100 * total / whole:.5}"))
        else:
            header = ("Action", "Mean duration (s)", "Total time (s)")
            rows.sort(key=lambda row: row[2] / row[1], reverse=True)
            body = [(action, f"{total / count:.5}", f"{total:.5}") for action, count, total in rows]
        return f"{self._headline()}\n\n{render(header, body)}\n"
