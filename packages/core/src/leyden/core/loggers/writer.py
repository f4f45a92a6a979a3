# SPDX-License-Identifier: Apache-2.0
"""The thread between the training and a file: training only appends, the thread wakes by time and by length.

A wake can cost the training thread one switch interval of the interpreter (5 ms), so there is one per second, not one
per row. Rows that could not be written wait, in order, and are tried again at the next wake.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, Protocol

from leyden.core.errors import LoggerError

# What a writer keeps while it can not write: about a day of rows, tens of megabytes.
LIMIT = 100_000
# Seconds that a flush waits for a write under way before it gives up: a dead network folder must not hold the exit.
PATIENCE = 60.0


class Writer(Protocol):
    """Takes rows in order."""

    @property
    def writes(self) -> bool:
        """Whether anything is written at all in this process."""

    def put(self, item: Any) -> None:
        """Hand one item over."""

    def flush(self) -> None:
        """Return when everything handed over is written."""

    def close(self) -> None:
        """Flush and end; the next `put` begins again."""


class SilentWriter:
    """Takes everything and writes nothing: the writer of every rank but zero."""

    writes = False

    def put(self, item: Any) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class BackgroundWriter:
    """Hands items to a function in a background thread.

    Args:
        write: Writes a batch. If it raises OSError the batch is handed over again, with what came since; after any
            other exception the batch is given up.
        target: What is written to, for messages.
        interval: Seconds between two wakes of the thread.
        batch: Number of waiting items that wakes it at once.
        limit: Number of items kept while nothing can be written; beyond it the oldest go.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Any]], None],
        target: str,
        *,
        interval: float = 1.0,
        batch: int = 1000,
        limit: int = LIMIT,
    ) -> None:
        self._pump = _Pump(write, target, interval, limit)
        self._queue = self._pump.queue
        self._batch = batch
        # The thread holds the pump and never this object, so that a dropped logger ends its thread.
        weakref.finalize(self, _Pump.abandon, self._pump).atexit = False

    @property
    def writes(self) -> bool:
        """False in a forked child (a DataLoader worker), which inherits the queue but not the right to write."""
        return self._pump.pid == os.getpid()

    def put(self, item: Any) -> None:
        """Append one item and return at once.

        Args:
            item: What ``write`` will get.

        Raises:
            LoggerError: Once per outage, if the thread could not write. The item is kept all the same.
        """
        pump = self._pump
        if pump.pid != os.getpid():
            return
        self._queue.append(item)
        if pump.thread is None:
            pump.start()
        if len(self._queue) >= self._batch:
            pump.crowded()
        if pump.error is not None:
            pump.raise_error()

    def flush(self) -> None:
        """Write everything now, in the calling thread.

        Raises:
            LoggerError: If that fails.
        """
        if self.writes:
            self._pump.drain()
            self._pump.raise_error()

    def close(self) -> None:
        """Write everything and end the thread. The next `put` starts another.

        Raises:
            LoggerError: If the rest could not be written.
        """
        self._pump.stop()


class _Pump:
    """Queue, thread and pending items: everything that must live as long as the thread does."""

    def __init__(self, write: Callable[[Sequence[Any]], None], target: str, interval: float, limit: int) -> None:
        self.write = write
        self.target = target
        self.interval = interval
        self.limit = limit
        self.queue: deque[Any] = deque()
        self.pending: list[Any] = []
        self.dropped = 0
        self.error: Exception | None = None
        self.failing = False
        self.wake = threading.Event()
        self.lock = threading.Lock()
        self.starting = threading.Lock()
        self.thread: _Thread | None = None
        self.pid = os.getpid()
        _stop_at_exit()
        _PUMPS.add(self)

    def start(self) -> None:
        with self.starting:
            if self.thread is None:
                self.thread = _Thread(self)
                self.thread.start()

    def crowded(self) -> None:
        if not self.failing:
            self.wake.set()
        if len(self.queue) > self.limit:
            self.queue.popleft()
            self._count_dropped(1, TimeoutError("a write has not returned"))

    def drain(self, *, again: bool = True) -> None:
        """Write what waits. With ``again`` a failure is reported even if the same outage was reported before."""
        if not self.lock.acquire(timeout=PATIENCE):
            self.error = TimeoutError(f"a write has not returned for {PATIENCE:.0f} seconds")
            return
        try:
            while self.queue:
                self.pending.append(self.queue.popleft())
            if self.pending:
                self._write_pending(again)
        finally:
            self.lock.release()

    def _write_pending(self, again: bool) -> None:
        try:
            self.write(self.pending)
        except OSError as error:
            if again or not self.failing:
                self.error = error
            self.failing = True
            surplus = len(self.pending) - self.limit
            if surplus > 0:
                del self.pending[:surplus]
                self._count_dropped(surplus, error)
        except Exception as error:  # noqa: BLE001 - goes to the next caller; a bad item must not block those after it
            self.error = error
            self.dropped += len(self.pending)
            self.pending.clear()
        else:
            self.failing = False
            self.pending.clear()

    def stop(self) -> None:
        if self.pid != os.getpid():
            return
        with self.starting:
            thread, self.thread = self.thread, None
        if thread is not None:
            thread.ended = True
            self.wake.set()
            thread.join(PATIENCE)
        self.drain()
        self.raise_error()

    def abandon(self) -> None:
        """End without an owner. Runs wherever the garbage collector does, so it takes no lock and waits for nothing."""
        if self.thread is not None:
            self.thread.orphaned = self.thread.ended = True

    def raise_error(self) -> None:
        error, self.error = self.error, None
        if error is None:
            return
        dropped, self.dropped = self.dropped, 0
        lost = f"; {dropped} rows were lost" if dropped else ""
        kept = len(self.pending) + len(self.queue)
        waiting = f"; {kept} rows wait and are written as soon as this works again" if self.failing else ""
        raise LoggerError(f"could not write to {self.target}: {error!r}{lost}{waiting}") from error

    def _count_dropped(self, count: int, cause: Exception) -> None:
        if self.dropped == 0:
            self.error = cause
        self.dropped += count


class _Thread(threading.Thread):
    """Drains its pump until it is ended."""

    def __init__(self, pump: _Pump) -> None:
        super().__init__(name=f"leyden writer {pump.target}", daemon=True)
        self.pump = pump
        self.ended = False
        self.orphaned = False

    def run(self) -> None:
        pump = self.pump
        while not self.ended:
            pump.wake.wait(pump.interval)
            pump.wake.clear()
            pump.drain(again=False)
        if self.orphaned:
            pump.drain()
            pump.raise_error()


_PUMPS: weakref.WeakSet[_Pump] = weakref.WeakSet()


@cache
def _stop_at_exit() -> None:
    atexit.register(_stop_all)


def _stop_all() -> None:
    with ExitStack() as stack:
        for pump in list(_PUMPS):
            stack.callback(pump.stop)
