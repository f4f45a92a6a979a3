# SPDX-License-Identifier: Apache-2.0
"""A logger that swallows everything: for ``fast_dev_run`` and for ranks that do not write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from leyden.core.loggers.dummy_experiment import DummyExperiment as DummyExperiment
from leyden.core.loggers.logger import Logger


class DummyLogger(Logger):
    """A logger that writes nothing and answers to everything.

    Examples:
        >>> logger = DummyLogger()
        >>> logger.log_metrics({"loss": 1.0}, step=0)
        >>> _ = logger[0].experiment.add_scalar("loss", 1.0)
    """

    def __init__(self) -> None:
        self._experiment = DummyExperiment()

    @property
    def name(self) -> str:
        """Always empty."""
        return ""

    @property
    def version(self) -> str:
        """Always empty."""
        return ""

    @property
    def experiment(self) -> DummyExperiment:
        """A client that swallows everything."""
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Do nothing."""

    def log_rows(self, names: Any, stacked: Tensor, steps: int) -> None:
        """Do nothing, without a look at the tensor."""

    def log_hyperparams(self, params: Any, metrics: Any = None) -> None:
        """Do nothing."""

    def __getitem__(self, index: Any) -> DummyLogger:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getattr__(self, name: str) -> DummyExperiment:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._experiment
