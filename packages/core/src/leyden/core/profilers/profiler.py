# SPDX-License-Identifier: Apache-2.0
"""The base class of profilers: named actions begin and end, and a report says what they cost."""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leyden.core.messages import tell

if TYPE_CHECKING:
    from torch import nn

_LOG = logging.getLogger(__name__)


class Profiler(ABC):
    """Base class of profilers.

    A subclass says what the beginning and the end of an action mean, and what its report is. `profile` wraps any code;
    under ``Trainer(profiler=...)`` the hooks, the steps and the loading of data are actions too.

    Args:
        dirpath: Folder of the report; the trainer's ``log_dir`` if None.
        filename: Name of the report, without suffix. Without it, the report is logged and not written to a file.

    Examples:
        >>> from leyden.core.profilers import Profiler
        >>> class Names(Profiler):
        ...     def start(self, action_name):
        ...         print("begin", action_name)
        ...
        ...     def stop(self, action_name):
        ...         print("end", action_name)
        >>> with Names().profile("load"):
        ...     pass
        begin load
        end load
    """

    def __init__(self, dirpath: str | os.PathLike[str] | None = None, filename: str | None = None) -> None:
        self.dirpath, self.filename = dirpath, filename
        self._stage: str | None = None
        self._local_rank: int | None = None

    @abstractmethod
    def start(self, action_name: str) -> None:
        """Begin to record an action."""

    @abstractmethod
    def stop(self, action_name: str) -> None:
        """End the recording of an action."""

    def summary(self) -> str:
        """Return the report; nothing is written where it is empty."""
        return ""

    @contextmanager
    def profile(self, action_name: str) -> Generator[str, None, None]:
        """Record what runs in a ``with`` block, also if it raises."""
        self.start(action_name)
        try:
            yield action_name
        finally:
            self.stop(action_name)

    def watch(self, module: nn.Module) -> None:  # noqa: B027  most profilers need no module
        """Learn before `setup` which module the run is about."""

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Begin a run.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
            local_rank: Rank of this process on its machine, or None if it is the only one.
            log_dir: Where reports go if ``dirpath`` was not given.
        """
        self._stage, self._local_rank = stage, local_rank
        self.dirpath = self.dirpath or log_dir

    def teardown(self, stage: str | None) -> None:  # noqa: B027  most profilers hold nothing open
        """End a run, also after an exception."""

    def describe(self) -> None:
        """Write the report, to its file or to the log, and end the run."""
        report = self.summary()
        if report and self.filename and self.dirpath:
            folder = Path(self.dirpath)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / self._prepare_filename()).open("a", encoding="utf-8") as file:
                file.write(report)
        elif report and self.local_rank == 0:
            tell(_LOG, report)
        self.teardown(self._stage)

    @property
    def local_rank(self) -> int:
        """Rank of this process on its machine."""
        return self._local_rank or 0

    def _prepare_filename(self, action_name: str | None = None, extension: str = ".txt") -> str:
        """Return a file's name made of stage, name, rank and action, without characters that some system forbids."""
        rank = None if self._local_rank is None else str(self._local_rank)
        parts = [part for part in (self._stage, self.filename, rank, action_name) if part]
        base = re.sub(r'[\\/:*?"<>|\n\r\t_]+', "_", "-".join(parts)).strip()
        return (base or "profile") + extension

    def _headline(self) -> str:
        return f"{self._stage.upper()} Profiler Report" if self._stage else "Profiler Report"

    def _sections(self, texts: dict[str, str]) -> str:
        """Return a report with a section per action."""
        rank = "" if self._local_rank is None else f" rank: {self._local_rank}"
        lines = [self._headline()]
        for action, text in texts.items():
            lines += [f"Profile stats for: {action}{rank}", text]
        return "\n".join(lines)


class PassThroughProfiler(Profiler):
    """A profiler that records nothing.

    Examples:
        >>> from leyden.core.profilers import PassThroughProfiler
        >>> with PassThroughProfiler().profile("anything") as action:
        ...     print(action)
        anything
    """

    def start(self, action_name: str) -> None:
        """Do nothing."""

    def stop(self, action_name: str) -> None:
        """Do nothing."""
