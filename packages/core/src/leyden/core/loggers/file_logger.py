# SPDX-License-Identifier: Apache-2.0
"""What every logger that writes files shares: folder, version, background writer, hyper-parameter file, identity."""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from torch import Tensor

from leyden.core.errors import LoggerError, MisconfigurationTypeError, NotYetSupported, warn
from leyden.core.interfaces import RunStatus
from leyden.core.loggers.logger import Logger
from leyden.core.loggers.plaindata import plain
from leyden.core.loggers.ranks import process_rank
from leyden.core.loggers.rows import Row, row_of_metrics, row_of_stack
from leyden.core.loggers.writer import BackgroundWriter, SilentWriter, Writer

# Versions that live loggers have chosen but whose folder may not exist yet.
_CHOSEN: weakref.WeakKeyDictionary[FileLogger, Path] = weakref.WeakKeyDictionary()


class Sink(Protocol):
    """Writes batches of rows to one place."""

    def write(self, items: Sequence[Any]) -> None:
        """Write all items, or raise OSError and be called again with them and what came since."""

    def identity(self) -> dict[str, Any]:
        """Return, as plain data, what the logger's ``_restore`` needs to bring the files back to this moment."""


class FileLogger(Logger):
    """A logger of one folder per run: ``save_dir/name/version_N``.

    N is the next free number. It is chosen when it is first asked for; the folder is made when something is first
    written. Rows go through a background thread and are on disk about a second later, at `save` and at `finalize`.
    Copies in other processes (pickle, fork) carry the configuration and the version; a forked copy of a logger that has
    begun to write writes nothing.

    Args:
        save_dir: Root folder; ``~`` and environment variables are expanded.
        name: Name of the experiment, a folder below ``save_dir``; empty for none.
        version: Number or name of the run; None chooses the next free number.
        prefix: Stands before the name of every metric, joined by ``-``.
        interval: Seconds between two writes.
        batch: Number of waiting rows that are written at once.

    Raises:
        NotYetSupported: If ``save_dir`` is the address of an object store.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        *,
        interval: float = 1.0,
        batch: int = 1000,
    ) -> None:
        if "://" in os.fspath(save_dir):
            raise NotYetSupported(f"save_dir must be a local folder in this version; got {os.fspath(save_dir)!r}")
        self._save_dir = os.path.expandvars(Path(save_dir).expanduser())
        self._name = name or ""
        self._version = version
        self._given = version is not None
        self._prefix = prefix
        self._interval = interval
        self._batch = batch
        self._last_step = -1
        self._writer: Writer | None = None
        self._sink: Sink | None = None
        self._restored = False
        self.hparams: dict[Any, Any] = {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self._name

    @property
    def version(self) -> int | str:
        """Version of the run: as given, else the next free number, chosen once."""
        if self._version is None:
            self._version = self._free_version()
            _CHOSEN[self] = self._version_dir
        return self._version

    @property
    def save_dir(self) -> str:
        """Root folder of the logger's files."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """Folder that holds all versions of the experiment."""
        return str(Path(self._save_dir) / self._name)

    @property
    def log_dir(self) -> str:
        """Folder of this run. It exists once something was written."""
        return str(self._version_dir)

    @property
    def _version_dir(self) -> Path:
        version = self.version
        return Path(self.root_dir) / (version if isinstance(version, str) else f"version_{version}")

    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Write one row.

        Args:
            metrics: Numbers, or tensors of one element, by name.
            step: Position of the row on the x axis; None means one after the last.

        Raises:
            MisconfigurationException: If a name or value is not of that kind; the message names it.
            LoggerError: If the folder or an earlier row could not be written.
        """
        self._put(row_of_metrics(metrics, self._last_step + 1 if step is None else step))

    def log_rows(self, names: Sequence[str], stacked: Tensor, steps: int) -> None:
        """Write one row given as one tensor, without a wait for its device.

        Args:
            names: The names, in the order of ``stacked``. Handed over, like the tensor.
            stacked: The values, of shape ``(len(names),)``.
            steps: The row's step.

        Raises:
            MisconfigurationValueError: If there is not one value per name.
            LoggerError: If the folder or an earlier row could not be written.
        """
        self._put(row_of_stack(names, stacked, steps))

    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:
        """Add to the run's configuration and write ``hparams.yaml``: plain data only, whatever the values are.

        Args:
            params: A mapping, a Namespace or a dataclass; None for nothing.
            metrics: Not used by loggers without a table of hyper-parameters.

        Raises:
            MisconfigurationTypeError: If ``params`` is none of these.
        """
        data = plain({} if params is None else params)
        if not isinstance(data, dict):
            raise MisconfigurationTypeError(
                f"params must be a mapping, a Namespace or a dataclass; got {type(params).__name__}"
            )
        self.hparams.update(data)
        if self._begin().writes:
            with self._in_folder("could not write hparams.yaml into"):
                write_yaml(Path(self.log_dir) / "hparams.yaml", self.hparams)

    def save(self) -> None:
        """Write every row that waits.

        Raises:
            LoggerError: If that fails.
        """
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: RunStatus) -> None:
        """Write every row that waits and end the background thread. Logging afterwards goes on with the same run.

        Args:
            status: The run's outcome.

        Raises:
            LoggerError: If the rows could not be written.
        """
        if self._writer is not None:
            self._writer.close()

    def new_run(self) -> None:
        """Begin another run: the next row belongs to a new version, unless the version was given by the user."""
        self._end_writer()
        _CHOSEN.pop(self, None)
        self._last_step = -1
        self.hparams = {}
        if not self._given:
            self._version = None

    def adopt_version(self, version: int | str | None) -> None:
        """Take the version that rank zero chose.

        Args:
            version: The version of rank zero's logger.
        """
        self._version = version

    def state_dict(self) -> dict[str, Any]:
        """Return the identity of the run after writing every row that waits; empty if nothing was written yet.

        Raises:
            LoggerError: If the rows could not be written.
        """
        self.save()
        if self._restored:
            self._begin()
        if self._sink is None:
            return {}
        place = {"version": self.version, "log_dir": str(Path(self.log_dir).absolute())}
        return {**place, "last_step": self._last_step, **self._sink.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run that ``state`` names: nothing is lost and nothing stands twice.

        What was written after the state was taken is dropped, because the resumed run writes it again. If the folder
        holds another run's files, they stay untouched and the run goes on in a new version, with a warning. A version
        given to the constructor wins over the state's.

        Args:
            state: What `state_dict` returned.

        Raises:
            LoggerError: If the files could not be read or cut.
        """
        if not state or (self._given and self._version != state["version"]):
            return
        self._end_writer()
        self._version = state["version"]
        self._last_step = state["last_step"]
        if process_rank() != 0:
            return
        with self._in_folder("could not continue the run in"):
            self._restored = self._restore(Path(self.log_dir), state)
        if not self._restored:
            passed_over = self.log_dir
            self._version = self._version if self._given else None
            warn(
                "LY-L003",
                f"{passed_over} holds files of another run than the checkpoint's. They stay as they are, and this run "
                f"is logged to {self.log_dir}",
            )

    @abstractmethod
    def _occupied(self, folder: Path) -> bool:
        """Return whether a file of this kind of logger stands in ``folder``."""

    @abstractmethod
    def _open_sink(self, folder: Path) -> Sink:
        """Create the file in ``folder`` if there is none yet, and return what writes to it."""

    @abstractmethod
    def _restore(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """Bring the files in ``folder`` back to ``state``; False, without a change, if they belong to another run."""

    def __getstate__(self) -> dict[str, Any]:
        begun = self._sink is not None
        return {**self.__dict__, "_writer": None, "_sink": None, "_restored": self._restored or begun}

    def _put(self, row: Row) -> None:
        if not row.names:
            return
        if self._prefix:
            names = [name if name == "epoch" else f"{self._prefix}-{name}" for name in row.names]
            row = row._replace(names=names)
        if row.step > self._last_step:
            self._last_step = row.step
        (self._writer or self._begin()).put(row)

    def _begin(self) -> Writer:
        if self._writer is not None:
            return self._writer
        if process_rank() != 0:
            self._writer = SilentWriter()
            return self._writer
        with self._in_folder("can not write to"):
            # Another process may have taken the number since it was chosen.
            while not (self._given or self._restored) and self._occupied(Path(self.log_dir)):
                taken, self._version = self.log_dir, None
                warn(
                    "LY-L005", f"another process began a run in {taken} meanwhile; this one is logged to {self.log_dir}"
                )
            folder = Path(self.log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self._sink = self._open_sink(folder)
        self._writer = BackgroundWriter(self._sink.write, str(folder), interval=self._interval, batch=self._batch)
        return self._writer

    def _end_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._sink = None
        self._restored = False

    def _free_version(self) -> int:
        root = Path(self.root_dir)
        chosen = {path.name for logger, path in _CHOSEN.items() if type(logger) is type(self) and path.parent == root}
        with contextlib.suppress(OSError):
            chosen |= {path.name for path in root.iterdir() if path.is_dir()}
        numbers = [int(name.removeprefix("version_")) for name in chosen if re.fullmatch(r"version_\d+", name)]
        return max(numbers, default=-1) + 1

    @contextlib.contextmanager
    def _in_folder(self, failed: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LoggerError(f"{type(self).__name__} {failed} {self.log_dir}: {error}") from error


def write_yaml(path: Path, data: Any) -> None:
    """Replace a YAML file by ``data``, which is plain; the old file stands until the new one is whole."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105
