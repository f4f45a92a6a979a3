# SPDX-License-Identifier: Apache-2.0
"""The base class of all loggers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from leyden.core.interfaces import RunStatus
from leyden.core.loggers.ranks import rank_zero_experiment as rank_zero_experiment


class Logger(ABC):
    """What the Trainer calls on a logger.

    A subclass must have ``name``, ``version``, ``log_metrics`` and ``log_hyperparams``. Everything else has a default,
    so that a logger for one's own service is a few lines. A logger that writes files derives from `FileLogger` instead,
    which brings the folder, the versions and the background writer.

    Examples:
        >>> class Printer(Logger):
        ...     name, version = "printer", 0
        ...     def log_metrics(self, metrics, step=None):
        ...         print(step, dict(metrics))
        ...     def log_hyperparams(self, params, metrics=None):
        ...         print(params)
        >>> Printer().log_metrics({"loss": 0.5}, step=3)
        3 {'loss': 0.5}
    """

    group_separator = "/"

    @property
    @abstractmethod
    def name(self) -> str | None:
        """Name of the experiment."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """Version of the run within the experiment."""

    @property
    def save_dir(self) -> str | None:
        """Root folder of the logger's files, or None if it writes none."""
        return None

    @property
    def root_dir(self) -> str | None:
        """Folder that holds all versions of the experiment, or None if the logger writes no files."""
        return None if self.save_dir is None else os.path.join(self.save_dir, self.name or "")  # noqa: PTH118 - may be a URL

    @property
    def log_dir(self) -> str | None:
        """Folder of this run, or None if the logger writes no files."""
        return None

    @property
    def experiment(self) -> Any:
        """The service's own client object, or None if there is none."""
        return None

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Write one row.

        Args:
            metrics: Numbers by name.
            step: Position of the row on the x axis; None means one after the last.
        """

    def log_rows(self, names: Sequence[str], stacked: Tensor, steps: int) -> None:
        """Write one row given as one tensor: what the log book calls, because it has folded its values already.

        The default makes a dict of it for `log_metrics`, which waits for the tensor's device. Override it to take the
        tensor as it is.

        Args:
            names: The names, in the order of ``stacked``.
            stacked: The values, of shape ``(len(names),)``. Handed over: the caller does not change it afterwards.
            steps: The row's step.
        """
        self.log_metrics(dict(zip(names, stacked.tolist(), strict=True)), steps)

    @abstractmethod
    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:
        """Write the configuration of the run.

        Args:
            params: A mapping, a Namespace or a dataclass.
            metrics: Numbers to show beside the configuration, where the service has a place for them.
        """

    def log_graph(self, model: nn.Module, input_array: Any = None) -> None:  # noqa: B027 - optional
        """Write the model's graph, where the service shows one.

        Args:
            model: The model.
            input_array: An input; None means the model's ``example_input_array``.
        """

    def save(self) -> None:  # noqa: B027 - optional
        """Bring everything that was written to its place."""

    def finalize(self, status: RunStatus) -> None:
        """Close the run with its outcome. Logging afterwards goes on with the same run.

        Args:
            status: ``"success"``, ``"failed"`` or ``"interrupted"``.
        """
        self.save()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:  # noqa: B027 - optional
        """Learn that a checkpoint was saved.

        Args:
            checkpoint_callback: The callback that saved it.
        """

    def new_run(self) -> None:  # noqa: B027 - optional
        """Begin another run: the next row belongs to a new version, unless the version was given by the user."""

    def adopt_version(self, version: int | str | None) -> None:  # noqa: B027 - optional
        """Take the version that rank zero chose. Called once at start on every other rank.

        Args:
            version: The version of rank zero's logger.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the identity of the run as plain data, for the checkpoint; empty if nothing was written yet."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Continue the run that ``state`` names: nothing is lost and nothing stands twice.

        What was written after the state was taken is dropped, because the resumed run writes it again.

        Args:
            state: What `state_dict` returned.
        """
