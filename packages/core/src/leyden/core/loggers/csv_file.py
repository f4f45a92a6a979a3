# SPDX-License-Identifier: Apache-2.0
"""A growing CSV table: one line per step, new columns at any time, and a state to which it can be cut back.

The last line stays open: a later row of the same step is merged into it. Lines only grow when they are merged, and a
write always begins at a known offset, so a write that failed half-way is simply done again.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyden.core.errors import warn
from leyden.core.loggers.rows import Row

# Counters that travel among floating-point numbers and are written as the integers they are.
INTEGERS = {"step", "epoch", "global_step", "samples"}

# Two loggers of one process may have been given the same table. One lock per process: a forked child must not inherit
# one that a thread of its parent holds.
_LOCKS: dict[int, threading.Lock] = {}


class CsvFile:
    """The table in one file.

    Args:
        path: The file. It is created with its header if it is missing, else read and continued.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.closed = 0
        self.last: dict[str, str] | None = None
        self._offset = 0
        self._seen: tuple[int, int] | None = None
        self._read()

    def write(self, items: Sequence[Row]) -> None:
        """Append rows; a row of the last line's step is merged into it unless a cell would change.

        Args:
            items: The rows.

        Raises:
            OSError: If the file can not be written; what stood in it before still does.
        """
        rows = [{"step": str(row.step), **_cells(row)} for row in items]
        with _LOCKS.setdefault(os.getpid(), threading.Lock()):
            self._write(rows)

    def identity(self) -> dict[str, Any]:
        """Return how many rows stand, and the last one, which may still grow."""
        last = None if self.last is None else dict(self.last)
        return {"rows": self.closed + (self.last is not None), "last": last}

    def holds(self, rows: int, last: Mapping[str, str] | None) -> bool:
        """Return whether the table went through the state of ``rows`` rows with ``last`` as the last.

        Args:
            rows: Number of rows, at least 1.
            last: Cells of row number ``rows``.
        """
        lines = self.path.read_bytes().splitlines()
        if len(lines) <= rows or last is None:
            return self.last is None
        found = dict(zip(self.columns, _parse(lines[rows]), strict=False))
        return all(found.get(name) == text for name, text in last.items())

    def cut(self, rows: int, last: Mapping[str, str] | None) -> None:
        """Drop, in one rename, every row after number ``rows`` and what was merged into that row later.

        Args:
            rows: Number of rows to keep.
            last: Cells of the last one.
        """
        found = self.closed + (self.last is not None)
        if found < rows:
            warn(
                "LY-L004",
                f"{self.path} holds {found} of the {rows} rows that the checkpoint knows; the others are gone",
            )
            return
        lines = self.path.read_bytes().splitlines(keepends=True)[:rows]
        if last is not None:
            lines.append(self._row_line(last))
        self._replace(b"".join(lines))
        self._read()

    def _write(self, rows: Sequence[Mapping[str, str]]) -> None:
        if self._signature() != self._seen:
            self._read()
        self._add_columns(rows)
        lines, closed, last = [], self.closed, None if self.last is None else dict(self.last)
        for row in rows:
            if last is None or any(last.get(name, text) != text for name, text in row.items()):
                if last is not None:
                    lines.append(self._row_line(last))
                    closed += 1
                last = {}
            last.update(row)
        if last is None:
            return
        finished = b"".join(lines)
        try:
            with self.path.open("r+b") as file:
                file.seek(self._offset)
                file.write(finished + self._row_line(last))
                file.truncate()
        finally:
            # Also after a write that failed half-way: the next begins at the same offset and must not read it back.
            self._seen = self._signature()
        self.closed, self.last, self._offset = closed, last, self._offset + len(finished)

    def _add_columns(self, rows: Iterable[Mapping[str, str]]) -> None:
        known = set(self.columns)
        new = list(dict.fromkeys(name for row in rows for name in row if name not in known))
        if not new:
            return
        _, _, body = self.path.read_bytes().partition(b"\n")
        columns = self.columns + new
        header = self._line(columns)
        # Numbers hold neither quotes nor line breaks, so each line of the body is a row.
        self._replace(header + body.replace(b"\n", b"," * len(new) + b"\n"))
        self.columns = columns
        self._offset = len(header) + len(body) + len(new) * body.count(b"\n")
        self._offset -= 0 if self.last is None else len(self._row_line(self.last))

    def _read(self) -> None:
        """Find columns, number of rows and the last row; a line that was cut short by a kill is dropped."""
        data = self.path.read_bytes() if self.path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True) or [self._line(["step", "epoch"])]
        whole = b"".join(lines)
        if whole != data:
            self._replace(whole)
        self.columns, self.closed, self.last = _parse(lines[0]), max(len(lines) - 2, 0), None
        self._offset = len(whole)
        if len(lines) > 1:
            cells = zip(self.columns, _parse(lines[-1]), strict=False)
            self.last = {name: text for name, text in cells if text}
            self._offset -= len(lines[-1])
        self._seen = self._signature()

    def _signature(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size

    def _replace(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.tmp")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            # Without it a power cut after the rename can leave an empty file where a table stood.
            os.fsync(file.fileno())
        os.replace(beside, self.path)  # noqa: PTH105
        self._seen = self._signature()

    def _row_line(self, row: Mapping[str, str]) -> bytes:
        return self._line([row.get(name, "") for name in self.columns])

    @staticmethod
    def _line(cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue().encode()


def _cells(row: Row) -> dict[str, str]:
    return {name: _text(name, value) for name, value in row.items() if name != "step"}


def _text(name: str, value: float) -> str:
    if name in INTEGERS and float(value).is_integer():
        return str(int(value))
    return repr(value)


def _parse(line: bytes) -> list[str]:
    return next(csv.reader([line.decode()]))
