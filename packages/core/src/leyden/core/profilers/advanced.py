# SPDX-License-Identifier: Apache-2.0
"""AdvancedProfiler: every function that ran in an action, by Python's own profiler."""

from __future__ import annotations

import cProfile
import io
import os
import pstats
from collections import defaultdict
from pathlib import Path
from typing import Any

from leyden.core.profilers.profiler import Profiler


class AdvancedProfiler(Profiler):
    """Records the calls of Python functions in every action with `cProfile`.

    Python has one profiler at a time: while an action runs inside another one, its calls count for the inner one only.

    Args:
        dirpath: Folder of the report; the trainer's ``log_dir`` if None.
        filename: Name of the report, without ``.txt``. Without it, the report is logged and not written to a file.
        line_count_restriction: How many functions are listed per action: an int counts lines, a float is a fraction.
        dump_stats: Whether to write a file for `pstats` per action too; that needs a folder.

    Attributes:
        profiled_actions: What was recorded, by action.

    Examples:
        >>> from leyden.core.profilers import AdvancedProfiler
        >>> profiler = AdvancedProfiler(line_count_restriction=5)
        >>> with profiler.profile("sort"):
        ...     ordered = sorted([3, 1, 2])
        >>> "Profile stats for: sort" in profiler.summary()
        True
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        line_count_restriction: float = 1.0,
        dump_stats: bool = False,
    ) -> None:
        super().__init__(dirpath=dirpath, filename=filename)
        self.line_count_restriction, self.dump_stats = line_count_restriction, dump_stats
        self.profiled_actions: dict[str, cProfile.Profile] = defaultdict(cProfile.Profile)
        self._running: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        # what cProfile recorded can be neither copied nor pickled
        return {**self.__dict__, "profiled_actions": defaultdict(cProfile.Profile), "_running": []}

    def start(self, action_name: str) -> None:
        """Begin to record an action; the one around it waits."""
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        self._running.append(action_name)
        self.profiled_actions[action_name].enable()

    def stop(self, action_name: str) -> None:
        """End the recording of an action; the one around it goes on.

        Raises:
            ValueError: The action was never begun.
        """
        if action_name not in self.profiled_actions:
            raise ValueError(f"Attempting to stop recording an action ({action_name}) which was never started.")
        self.profiled_actions[action_name].disable()
        if action_name in self._running:
            self._running.remove(action_name)
        if self._running:
            self.profiled_actions[self._running[-1]].enable()

    def summary(self) -> str:
        """Return the functions of every action, the dearest first, and write the files that were asked for."""
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        texts = {}
        for action, profile in self.profiled_actions.items():
            if self.dump_stats:
                self._dump(action, profile)
            text = io.StringIO()
            pstats.Stats(profile, stream=text).strip_dirs().sort_stats("cumulative").print_stats(
                self.line_count_restriction
            )
            texts[action] = text.getvalue()
        return self._sections(texts)

    def teardown(self, stage: str | None) -> None:
        """End a run: the next one begins with nothing recorded."""
        for profile in self.profiled_actions.values():
            profile.disable()
        self.profiled_actions.clear()
        self._running.clear()

    def _dump(self, action: str, profile: cProfile.Profile) -> None:
        if self.dirpath is None:
            raise ValueError("`AdvancedProfiler(dump_stats=True)` needs a folder: give `dirpath` or a logger.")
        folder = Path(self.dirpath)
        folder.mkdir(parents=True, exist_ok=True)
        profile.dump_stats(str(folder / self._prepare_filename(action, ".prof")))
