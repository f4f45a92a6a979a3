# SPDX-License-Identifier: Apache-2.0
"""What core needs of things that live elsewhere: a metric, a logger, an exporter.

Data and Protocols only. Everything here is matched by shape, so `leyden.metrics`, `leyden.export` and third parties
satisfy it without importing this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

Reduction: TypeAlias = Literal["sum", "mean", "min", "max", "cat", "merge"]
States: TypeAlias = dict[str, Tensor | list[Tensor]]
RunStatus: TypeAlias = Literal["success", "failed", "interrupted"]


@dataclass(frozen=True)
class StateSpec:
    """How one state of a metric (or one logged value) combines across batches and ranks.

    Attributes:
        name: Name of the state; a wrapper or a collection lists its children as ``child/state``.
        reduction: How two values become one. ``"merge"`` states are gathered and folded by the metric's own
            ``merge_state`` in rank order.
        dtype: Element type of the state.
        shape: Shape of the state; None means that it grows with the data (a list state).
        neutral: The number that changes nothing under ``reduction``: what a rank without data contributes.
        persistent: Whether the state is part of ``state_dict``.
        weight_of: For a ``"mean"`` state, the name of the state that counts its weight.
    """

    name: str
    reduction: Reduction
    dtype: torch.dtype
    shape: tuple[int, ...] | None
    neutral: float | int | None = 0
    persistent: bool = False
    weight_of: str | None = None


@runtime_checkable
class MetricLike(Protocol):
    """Anything that accumulates batches and computes a value: what `self.log` takes besides numbers and tensors.

    The value of the last batch is read from ``batch_value`` if there is one, else from ``_forward_cache``.
    """

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add one batch to the state."""

    def compute(self) -> Any:
        """Return the value of everything seen since the last reset."""

    def reset(self) -> None:
        """Forget everything that was seen."""


@runtime_checkable
class MetricGroup(Protocol):
    """A metric whose ``compute`` gives one named value per member: what `self.log_dict` takes."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add one batch to the state of every member."""

    def compute(self) -> Mapping[str, Any]:
        """Return the members' values by name."""

    def reset(self) -> None:
        """Forget everything that was seen."""


@runtime_checkable
class SyncableMetric(Protocol):
    """A metric that hands its states over, so that many metrics cross ranks in one collective.

    A metric without these methods synchronises in its own ``compute``.
    """

    def state_specs(self) -> dict[str, StateSpec]:
        """Return the specification of every state by its name."""

    def export_states(self) -> States:
        """Return the local states by name: a tensor, or a list of tensors for a state that grows."""

    def synced(self, states: States) -> AbstractContextManager[None]:
        """Install global states for the length of a ``with`` block, forbid own synchronisation, then restore."""


@runtime_checkable
class LoggerLike(Protocol):
    """What the Trainer calls on a logger. `leyden.core.loggers.Logger` is the base class that has it all.

    Optional and looked up by name: ``log_rows(names, stacked, steps)``, a fast path that takes one stacked tensor
    per row, and ``state_dict`` / ``load_state_dict``, which carry the identity of the run.
    """

    @property
    def name(self) -> str | None:
        """Name of the experiment."""

    @property
    def version(self) -> int | str | None:
        """Version of the run within the experiment."""

    @property
    def save_dir(self) -> str | None:
        """Root folder of the logger's files, or None if it writes none."""

    @property
    def log_dir(self) -> str | None:
        """Folder of this run, or None if the logger writes no files."""

    @property
    def experiment(self) -> Any:
        """The service's own client object."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write one row."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write the configuration of the run."""

    def log_graph(self, model: nn.Module, input_array: Any = None) -> None:
        """Write the model's graph, where the service shows one."""

    def save(self) -> None:
        """Bring everything that was written to its place."""

    def finalize(self, status: RunStatus) -> None:
        """Close the run with its outcome."""

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Learn that a checkpoint was saved."""


@runtime_checkable
class ReportLike(Protocol):
    """What an export answers with."""

    @property
    def path(self) -> Path:
        """The file or folder that was written."""

    @property
    def format(self) -> str:
        """Name of the format."""


@runtime_checkable
class ExporterLike(Protocol):
    """An entry of the group ``leyden.export.formats``: one export format under its name.

    Attributes:
        suffixes: File name endings that select the format, such as ``(".onnx",)``.
        requires: Names of the modules that must be importable.
    """

    suffixes: Sequence[str]
    requires: Sequence[str]

    def export(self, module: nn.Module, path: Path, inputs: Any, **options: Any) -> ReportLike:
        """Write ``module`` to ``path``, called with ``inputs``."""
