# SPDX-License-Identifier: Apache-2.0
"""Signals only set a flag; the loops look at it where the run can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Whether a signal asked this process to stop.

    Attributes:
        signum: Number of the first signal that came, or None.

    Examples:
        >>> import signal
        >>> from leyden.core.signals import StopFlag
        >>> flag = StopFlag()
        >>> with flag.listening():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> flag.signum == signal.SIGTERM
        True
    """

    # whether this process may stop without asking others
    alone = True

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        # a second signal takes its ordinary course at once; whoever listened before us learns of the first
        before = self._before.get(signum)
        default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
        signal.signal(signum, default)
        if callable(before) and before is not signal.default_int_handler:
            before(signum, frame)

    def seen(self) -> int | None:
        """Return the number of the signal to stop for, or None. Asked after every batch of a training."""
        return self.signum

    def drain(self) -> None:
        """Finish what was begun to ask the other processes."""

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """Catch signals for the length of a ``with`` block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for caught in CAUGHT:
            # what the parent process had ignored, as for a job in the background, stays ignored
            if signal.getsignal(caught) is not signal.SIG_IGN:
                self._before[caught] = signal.signal(caught, self._handle)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._before = {}


class AgreedStop(StopFlag):
    """A stop flag of several processes: whichever of them was signalled, all stop after the same batch.

    Every few batches a reduction is begun, and read when the next is: the processes wait for each other only if one is
    more than that many batches behind. How many is agreed in the same message, so that there is about one a second.

    Args:
        group: A process group that speaks from the CPU and that nobody else uses.
        first: Called once, when the first batch is done.
        interval: Seconds between two reductions.
    """

    alone = False

    def __init__(self, group: Any, first: Callable[[], None] | None = None, interval: float = 1.0) -> None:
        super().__init__()
        self._first = first
        self._group, self._interval = group, interval
        self._every, self._count, self._began = 1, 0, monotonic()
        self._buffer = torch.zeros(2, dtype=torch.int64)
        self._work: Any = None

    def seen(self) -> int | None:
        """Return the number of the signal that all processes stop for, or None."""
        if self._first is not None:
            self._first()
            self._first = None
        self._count += 1
        if self._count < self._every:
            return None
        signum = 0
        if self._work is not None:
            self._work.wait()
            signum, self._every = self._buffer.tolist()
        now = monotonic()
        wanted = self._count * self._interval / max(now - self._began, 1e-6)
        self._count, self._began, self._work = 0, now, None
        if signum:
            return signum
        self._buffer = torch.tensor([self.signum or 0, min(max(int(wanted), 1), 4096)])
        self._work = dist.all_reduce(self._buffer, dist.ReduceOp.MAX, self._group, async_op=True)
        return None

    def drain(self) -> None:
        """Finish the reduction that is under way; a signal that it tells of is heeded by the next run."""
        if self._work is not None:
            self._work.wait()
            self._work = None
