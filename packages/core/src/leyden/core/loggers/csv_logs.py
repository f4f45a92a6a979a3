# SPDX-License-Identifier: Apache-2.0
"""The logger that needs nothing: a CSV table and a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.core.errors import MisconfigurationValueError
from leyden.core.loggers.csv_file import CsvFile
from leyden.core.loggers.file_logger import FileLogger
from leyden.core.loggers.ranks import rank_zero_experiment

FILE_NAME = "metrics.csv"


class CSVLogger(FileLogger):
    """Write ``metrics.csv`` and ``hparams.yaml`` into ``save_dir/name/version_N``.

    The table has the columns ``step`` and ``epoch`` and then one per metric, in the order of their first appearance.
    What is logged at one step stands in one line. An existing table of a version that is given goes on at its end.

    Args:
        save_dir: Root folder; ``~`` and environment variables are expanded.
        name: Name of the experiment, a folder below ``save_dir``; empty for none.
        version: Number or name of the run; None chooses the next free number.
        prefix: Stands before the name of every metric, joined by ``-``.
        flush_logs_every_n_steps: Number of waiting rows that are written at once; else rows are written once a second.

    Raises:
        MisconfigurationValueError: If ``flush_logs_every_n_steps`` is less than 1.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> logger = CSVLogger(folder, name="digits")
        >>> logger.log_metrics({"loss": 0.5, "epoch": 0}, step=10)
        >>> logger.log_metrics({"accuracy": 0.75}, step=10)
        >>> logger.save()
        >>> print((Path(logger.log_dir) / "metrics.csv").read_text().strip())
        step,epoch,loss,accuracy
        10,0,0.5,0.75
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        if flush_logs_every_n_steps < 1:
            raise MisconfigurationValueError(
                f"flush_logs_every_n_steps must be at least 1; got {flush_logs_every_n_steps}"
            )
        super().__init__(save_dir, name, version, prefix, batch=flush_logs_every_n_steps)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """This logger itself: a file has no other client."""
        return self

    def _occupied(self, folder: Path) -> bool:
        return (folder / FILE_NAME).exists()

    def _open_sink(self, folder: Path) -> CsvFile:
        return CsvFile(folder / FILE_NAME)

    def _restore(self, folder: Path, state: Mapping[str, Any]) -> bool:
        table = CsvFile(folder / FILE_NAME)
        rows, last = state["rows"], state["last"]
        # Without a row to compare, only the place tells whose table it is.
        ours = table.holds(rows, last) if rows else table.last is None or state["log_dir"] == str(folder.absolute())
        if ours:
            table.cut(rows, last)
        return ours
