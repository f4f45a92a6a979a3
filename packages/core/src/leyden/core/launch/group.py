# SPDX-License-Identifier: Apache-2.0
"""The processes of a run on this machine, as the one that started them sees them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

TICK = 0.05
# what a rank may still do once another one has failed: the run is over, and others wait for its end
GRACE = 3.0
# how long to look for the rank that failed first, once one has
SETTLE = 0.3
# how long a rank that left in the middle of a verb may be ahead of others that leave as well
LEAVING = 2.0
# a final save after a signal takes as long as the model is large
PATIENCE = 600.0


class RankProcess(Protocol):
    """A process that leads a process group of its own."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it runs."""


class RankGroup:
    """All ranks that one process has started.

    Args:
        processes: By local rank.
    """

    def __init__(self, processes: Sequence[RankProcess]) -> None:
        self.processes = list(processes)

    def codes(self) -> list[int | None]:
        """Return the exit code of every rank, None where it still runs."""
        return [process.poll() for process in self.processes]

    def running(self) -> list[RankProcess]:
        """Return the ranks that still run."""
        return [process for process in self.processes if process.poll() is None]

    def send(self, signum: int) -> None:
        """Send a signal to every rank that still runs, and not to what the ranks have started themselves."""
        for process in self.running():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all ranks have ended.

        Args:
            seconds: How long at most.
            until: Ends the waiting early.

        Returns:
            Whether all have ended.
        """
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline and not until():
            time.sleep(TICK)
        return not self.running()

    def end(self, grace: float = GRACE) -> None:
        """End every rank, and whatever the ranks have started.

        Args:
            grace: Seconds between the request and the end by force.
        """
        if grace:
            self.send(signal.SIGTERM)
            self.wait(grace)
        for process in self.processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        self.wait(GRACE)


class CaughtSignals:
    """Remembers the signals that came, for a loop that looks at them.

    Args:
        signums: Which to catch. What the parent process had ignored, as ``nohup`` does, stays ignored.
    """

    def __init__(self, signums: Sequence[int]) -> None:
        self.seen: list[int] = []
        self._before: dict[int, Any] = {}
        for signum in signums:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._remember)

    def _remember(self, signum: int, frame: Any) -> None:
        self.seen.append(signum)

    def release(self) -> None:
        """Put the handlers back that stood before."""
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
