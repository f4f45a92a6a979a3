# SPDX-License-Identifier: Apache-2.0
"""One TensorBoard event file: one event per row, steps of a tag never going back, and a length to which it can be cut.

All files of one run bear the run's id in their names, so that a resumed run finds its own and leaves others alone.
TensorBoard reads the files of a folder in the order of their names and, once it has gone to a newer one, never looks at
an older one again: therefore everything a process writes, also through the client, goes into one file.
"""

from __future__ import annotations

import io
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from leyden.core.loggers.rows import Row


class EventFile:
    """A new event file in a folder.

    Args:
        folder: Folder of the run.
        run: Id of the run.
        suffix: Ending of the file's name.
        purge_step: If given, readers drop what older files hold at this step and above.
    """

    def __init__(self, folder: Path, run: str, suffix: str = "", purge_step: int | None = None) -> None:
        self.folder = folder
        self.run = run
        self.late = 0
        self.newest_step = -1 if purge_step is None else purge_step - 1
        self._newest: dict[str, int] = {}
        self._purge_step = purge_step
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.path = folder / f"events.out.tfevents.{_stamp(folder):010d}.{host}.{os.getpid()}.leyden-{run}{suffix}"
        self._create()

    def write(self, items: Sequence[Row | Event]) -> None:
        """Append rows and events.

        Args:
            items: Rows of numbers, and events that the client made.

        Raises:
            OSError: If the file can not be written; the same items may be handed over again.
        """
        newest, late, events = dict(self._newest), 0, []
        for item in items:
            if isinstance(item, Row):
                made, came_late = _events(item, newest)
                events += made
                late += came_late
            else:
                events.append(item)
        if not self.path.exists():
            self._create()
        self._append(events)
        self._newest = newest
        self.late += late
        self.newest_step = max(self.newest_step, *(event.step for event in events))

    def identity(self) -> dict[str, Any]:
        """Return the run's id, the length of each of its files, and the first step that no event has reached."""
        files = {path.name: path.stat().st_size for path in files_of_run(self.folder, self.run)}
        files[self.path.name] = self._end
        return {"run": self.run, "files": files, "purge_step": self.newest_step + 1}

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self._end = 0
        first = Event(
            wall_time=time.time(), file_version="brain.Event:2", source_metadata=SourceMetadata(writer="leyden.loggers")
        )
        events = [first]
        if self._purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=self._purge_step, session_log=start))
        self._append(events)

    def _append(self, events: Iterable[Event]) -> None:
        records = io.BytesIO()
        framed = RecordWriter(records)
        for event in events:
            framed.write(event.SerializeToString())
        # Opened for each batch: nothing is inherited by workers, and a write that failed half-way is overwritten.
        with self.path.open("r+b") as file:
            file.seek(self._end)
            file.write(records.getbuffer())
            file.truncate()
        self._end += len(records.getbuffer())


def files_of_run(folder: Path, run: str) -> list[Path]:
    """Return the event files that one run wrote into a folder.

    Args:
        folder: The folder; it may be missing.
        run: Id of the run.
    """
    return sorted(path for path in event_files(folder) if f".leyden-{run}" in path.name)


def event_files(folder: Path) -> list[Path]:
    """Return all event files of a folder, whoever wrote them.

    Args:
        folder: The folder; it may be missing.
    """
    return sorted(folder.glob("*tfevents*"))


def cut_back(folder: Path, run: str, files: dict[str, int]) -> None:
    """Bring the files of a run back to the lengths they had, and remove those that were begun later.

    Args:
        folder: The folder.
        run: Id of the run.
        files: Length in bytes by name.
    """
    for path in files_of_run(folder, run):
        if path.name not in files:
            path.unlink()
        elif path.stat().st_size > files[path.name]:
            os.truncate(path, files[path.name])


def _stamp(folder: Path) -> int:
    """Return the time for a new file's name: later than every other's, so that readers come to it last."""
    found = (re.search(r"tfevents\.(\d+)", path.name) for path in event_files(folder))
    return max([int(time.time()), *(int(match[1]) + 1 for match in found if match)])


def _events(row: Row, newest: dict[str, int]) -> tuple[list[Event], int]:
    """Return a row's events, nearly always one, and how many values were moved to a tag's newest step.

    A step that goes back makes TensorBoard drop all later points of the tag.
    """
    late = 0
    by_step: dict[int, list[Summary.Value]] = {}
    for tag, number in row.items():
        step = max(row.step, newest.get(tag, row.step))
        late += step != row.step
        newest[tag] = step
        by_step.setdefault(step, []).append(Summary.Value(tag=tag, simple_value=number))
    events = [Event(wall_time=row.time, step=step, summary=Summary(value=by_step[step])) for step in sorted(by_step)]
    return events, late
