# SPDX-License-Identifier: Apache-2.0
"""PyTorch's SummaryWriter on top of the logger's own file and writer thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.tensorboard.writer import FileWriter, SummaryWriter


class SharedSummaryWriter(SummaryWriter):
    """A `torch.utils.tensorboard.SummaryWriter` whose events go where the logger's rows go.

    Args:
        log_dir: Folder of the run.
        put: Takes one event.
        flush: Writes every event that was taken.
    """

    def __init__(self, log_dir: str, put: Callable[[Any], None], flush: Callable[[], None]) -> None:
        self._shared = _SharedFile(log_dir, put, flush)
        super().__init__(log_dir)

    def _get_file_writer(self) -> FileWriter:
        # The one place where SummaryWriter opens a file. After close() it is asked again and begins anew.
        if self.all_writers is None:
            self.file_writer = self._shared  # type: ignore[assignment]
            self.all_writers = {self.log_dir: self._shared}  # type: ignore[assignment]
        return self._shared


class _SharedFile(FileWriter):
    def __init__(self, log_dir: str, put: Callable[[Any], None], flush: Callable[[], None]) -> None:
        self.event_writer = _EventQueue(log_dir, put, flush)


class _EventQueue:
    """Takes the place of tensorboard's EventFileWriter."""

    def __init__(self, log_dir: str, put: Callable[[Any], None], flush: Callable[[], None]) -> None:
        self._log_dir = log_dir
        self.add_event = put
        self.flush = flush

    def get_logdir(self) -> str:
        return self._log_dir

    def close(self) -> None:
        self.flush()

    def reopen(self) -> None:
        return
