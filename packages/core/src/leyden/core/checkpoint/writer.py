# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are written beside the training: it stops for the copy of the state, and a thread does the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from leyden.core.checkpoint import file
from leyden.core.checkpoint.snapshot import snapshot
from leyden.core.errors import CheckpointError, CheckpointWriteError, warn

Action = Callable[[], None]


class _Flight:
    """A file on its way, and what is to follow it. Without a state, it stands for the one of another process."""

    def __init__(self, path: Path, state: dict[str, Any] | None, record: Mapping[str, Any]) -> None:
        self.path = path
        self.error: Exception | None = None
        self.stood: list[Action] = []
        self.failed: list[Callable[[CheckpointWriteError], None]] = []
        self._state, self._record = state, record
        self._actions: deque[Action] = deque()
        self._lock, self._over = Lock(), state is None
        # it is no daemon: an interpreter that ends waits for it
        self.thread = None if state is None else Thread(target=self._run, name=f"save {path.name}")
        if self.thread is not None:
            self.thread.start()

    def _run(self) -> None:
        try:
            assert self._state is not None
            file.save(self.path, self._state, self._record)
            self._state = None
            while (action := self._next()) is not None:
                action()
        except Exception as error:  # noqa: BLE001 - it is raised where the training waits for the file
            self.error = error
        finally:
            self._state, self._over = None, True

    def _next(self) -> Action | None:
        with self._lock:
            self._over = not self._actions
            return None if self._over else self._actions.popleft()

    def then(self, action: Action) -> None:
        with self._lock:
            if not self._over:
                self._actions.append(action)
                return
        if self.thread is None:
            return
        self.thread.join()
        if self.error is None:
            action()

    def wait(self) -> Exception | None:
        if self.thread is not None:
            self.thread.join()
        return self.error


class Writer:
    """Writes the checkpoints of a run beside it, one at a time.

    Every process has one and calls its methods at the same places; the first process writes.

    Args:
        broadcast: Returns what it is given in the first process, on all.
        alone: Whether there is one process only.

    Attributes:
        beside: Whether files are written beside the run at present, or before it goes on.
    """

    def __init__(self, broadcast: Callable[[Any], Any], *, alone: bool) -> None:
        self.beside = False
        self._broadcast, self._alone = broadcast, alone
        self._flight: _Flight | None = None

    def save(self, path: Path, state: dict[str, Any] | None, record: Mapping[str, Any]) -> None:
        """Write a checkpoint, or begin to.

        Args:
            path: Where it will stand.
            state: Tensors and plain data; None in processes that do not write.
            record: What the file is, as JSON data.

        Raises:
            CheckpointError: Something in ``state`` is no plain data.
            CheckpointWriteError: The file can not be written, if it is not written beside the run.
        """
        if not self.beside:
            if state is not None:
                file.save(path, state, record)
            return
        if state is not None:
            file.refuse_objects(state, "checkpoint")
            state = snapshot(state)
        self._flight = _Flight(path, state, dict(record))

    def then(self, action: Action) -> None:
        """Do something with files, once the one under way stands: at once if none is, never if it fails."""
        if self._flight is None:
            action()
        else:
            self._flight.then(action)

    def told(self, stood: Action, failed: Callable[[CheckpointWriteError], None] | None = None) -> None:
        """Call a function in the training's thread when the file under way stands, or the other if it failed."""
        if self._flight is None:
            stood()
            return
        self._flight.stood.append(stood)
        if failed is not None:
            self._flight.failed.append(failed)

    @property
    def landed(self) -> bool:
        """Whether a file is done of which nobody was told, where this process may tell so alone."""
        flight = self._flight
        return flight is not None and self._alone and flight.thread is not None and not flight.thread.is_alive()

    def settle(self) -> None:
        """Wait for the file under way, on all processes, and tell who waits for it.

        Raises:
            CheckpointError: It could not be written, and nobody took care of that.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return
        error = flight.wait()
        told = self._broadcast(None if error is None else (str(error), isinstance(error, CheckpointWriteError)))
        if told is None:
            for call in flight.stood:
                call()
            return
        if not told[1]:
            raise error if error is not None else CheckpointError(told[0])
        failure = error if isinstance(error, CheckpointWriteError) else CheckpointWriteError(told[0])
        if not flight.failed:
            raise failure
        for take in flight.failed:
            take(failure)

    def close(self) -> None:
        """Wait for the file under way without the other processes: the run ends by an error that is to be seen."""
        self.beside = False
        flight, self._flight = self._flight, None
        error = None if flight is None else flight.wait()
        if error is not None:
            warn("LY-C014", f"{error} It was being written when the run ended.")
