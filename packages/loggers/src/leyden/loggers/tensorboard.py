# SPDX-License-Identifier: Apache-2.0
"""TensorBoard: scalars, the table of hyper-parameters, the graph, and PyTorch's SummaryWriter for everything else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from leyden.core.errors import MisconfigurationValueError, warn
from leyden.core.interfaces import RunStatus
from leyden.core.loggers.choice import require
from leyden.core.loggers.file_logger import FileLogger
from leyden.core.loggers.plaindata import flatten
from leyden.core.loggers.ranks import rank_zero_experiment
from leyden.core.loggers.rows import as_number

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from leyden.loggers.event_file import EventFile

WRITER_OPTIONS = {"comment", "purge_step", "max_queue", "flush_secs", "filename_suffix"}


class TensorBoardLogger(FileLogger):
    """Write TensorBoard event files and ``hparams.yaml`` into ``save_dir/name/version_N``.

    A row is one event with all its tags. Rows and everything sent through `experiment` go into one file, through a
    background thread, and are on disk about a second later. The table of hyper-parameters gets the run's outcome.

    Args:
        save_dir: Root folder; ``~`` and environment variables are expanded.
        name: Name of the experiment, a folder below ``save_dir``; empty for none.
        version: Number or name of the run; None chooses the next free number.
        log_graph: Whether `log_graph` writes the model's graph.
        default_hp_metric: Whether the table of hyper-parameters gets a column ``hp_metric`` when no metrics are given
            with them. It is empty until a metric of this name is logged.
        prefix: Stands before the name of every metric, joined by ``-``.
        sub_dir: Folder below the version's that the files go to.
        **writer_kwargs: Arguments of PyTorch's SummaryWriter: ``flush_secs`` (1 by default), ``max_queue``,
            ``filename_suffix``, ``purge_step``; ``comment`` has no effect, as there.

    Raises:
        MissingExtraError: If tensorboard is not installed.
        MisconfigurationValueError: If ``writer_kwargs`` holds another name.

    Examples:
        >>> import tempfile
        >>> logger = TensorBoardLogger(tempfile.mkdtemp(), name="digits")
        >>> logger.log_hyperparams({"lr": 0.1})
        >>> logger.log_metrics({"loss": 0.5}, step=10)
        >>> logger.experiment.add_text("note", "first run")
        >>> logger.finalize("success")
    """

    requires: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = True,
        prefix: str = "",
        sub_dir: str | os.PathLike[str] | None = None,
        **writer_kwargs: Any,
    ) -> None:
        require(type(self), "pip install 'leyden-loggers[tensorboard]'")
        unknown = sorted(set(writer_kwargs) - WRITER_OPTIONS)
        if unknown:
            raise MisconfigurationValueError(
                f"TensorBoardLogger takes no argument {unknown[0]!r}; besides its own it takes {sorted(WRITER_OPTIONS)}"
            )
        interval = float(writer_kwargs.get("flush_secs", 1.0))
        super().__init__(
            save_dir, name, version, prefix, interval=interval, batch=writer_kwargs.get("max_queue") or 1000
        )
        self._log_graph = log_graph
        self._default_hp_metric = default_hp_metric
        self._sub_dir = None if sub_dir is None else os.path.expandvars(Path(sub_dir).expanduser())
        self._suffix: str = writer_kwargs.get("filename_suffix", "")
        self._purge_step: int | None = writer_kwargs.get("purge_step")
        self._run = secrets.token_hex(4)
        self._client: SummaryWriter | None = None
        self._session_open = False

    @property
    def log_dir(self) -> str:
        """Folder of this run, with ``sub_dir``. It exists once something was written."""
        return str(self._version_dir / (self._sub_dir or ""))

    @property
    def sub_dir(self) -> str | None:
        """Folder below the version's that the files go to."""
        return self._sub_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """PyTorch's SummaryWriter, made on first use. What it writes goes into the logger's own file."""
        if self._client is None:
            from leyden.loggers.summary_client import SharedSummaryWriter

            self._client = SharedSummaryWriter(self.log_dir, self._put_event, self.save)
        return self._client

    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:
        """Add to the run's configuration: ``hparams.yaml`` and TensorBoard's table.

        Args:
            params: A mapping, a Namespace or a dataclass; None for nothing.
            metrics: Numbers by name that the table shows beside them, also logged at step 0; or one number, named
                ``hp_metric``.

        Raises:
            MisconfigurationTypeError: If ``params`` is none of these or a metric is no number.
        """
        super().log_hyperparams(params)
        if metrics is None:
            shown: dict[str, Any] = {}
        else:
            shown = dict(metrics) if isinstance(metrics, Mapping) else {"hp_metric": as_number("hp_metric", metrics)}
        if shown:
            self.log_metrics(shown, 0)
        if not self._begin().writes:
            return
        from leyden.loggers.session_summaries import session_start

        columns = list(shown) or (["hp_metric"] if self._default_hp_metric else [])
        for event in session_start(flatten(self.hparams), columns):
            self._put_event(event)
        self._session_open = True

    def log_graph(self, model: nn.Module, input_array: Any = None) -> None:
        """Write the model's graph, if the logger was made with ``log_graph=True``.

        Args:
            model: The model.
            input_array: A tensor, or a tuple or list of tensors; None means the model's ``example_input_array``.
        """
        if not self._log_graph or not self._begin().writes:
            return
        inputs = getattr(model, "example_input_array", None) if input_array is None else input_array
        tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs) if isinstance(inputs, tuple | list) else ()
        if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
            warn(
                "LY-L007",
                "log_graph=True needs an input to trace the model with: a tensor or a tuple of tensors, given to "
                f"log_graph or as the model's example_input_array; got {type(inputs).__name__}. No graph is written",
            )
            return
        from leyden.loggers.model_graph import add_graph

        add_graph(self.experiment, model, tensors)

    def save(self) -> None:
        """Write every row and event that waits.

        Raises:
            LoggerError: If that fails.
        """
        super().save()
        self._tell_late()

    def finalize(self, status: RunStatus) -> None:
        """Enter the outcome into the table of hyper-parameters and write everything that waits.

        Args:
            status: The run's outcome.

        Raises:
            LoggerError: If the rows could not be written.
        """
        if self._session_open:
            from leyden.loggers.session_summaries import session_end

            self._put_event(session_end(status))
            self._session_open = False
        super().finalize(status)
        self._tell_late()

    def new_run(self) -> None:
        """Begin another run: the next row belongs to a new version, unless the version was given by the user."""
        super().new_run()
        self._client, self._session_open = None, False
        self._run = secrets.token_hex(4)

    def _occupied(self, folder: Path) -> bool:
        return any(folder.glob("*tfevents*"))

    def _open_sink(self, folder: Path) -> EventFile:
        from leyden.loggers.event_file import EventFile

        return EventFile(folder, self._run, self._suffix, self._purge_step)

    def _restore(self, folder: Path, state: Mapping[str, Any]) -> bool:
        from leyden.loggers.event_file import cut_back, event_files, files_of_run

        if not files_of_run(folder, state["run"]):
            if event_files(folder):
                return False
            warn("LY-L004", f"{folder} holds none of the event files that the checkpoint knows: earlier rows are gone")
        cut_back(folder, state["run"], state["files"])
        self._run, self._purge_step, self._client = state["run"], state["purge_step"], None
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_client": None}

    def _put_event(self, event: Any) -> None:
        self._begin().put(event)

    def _tell_late(self) -> None:
        late = getattr(self._sink, "late", 0)
        if late:
            warn(
                "LY-L006",
                "values came with a step lower than the last of their name and were put at that last step, because "
                "TensorBoard drops all later points when a step goes back",
            )
