# SPDX-License-Identifier: Apache-2.0
"""Where a run's numbers go: the base class, the CSV file, and the choice of a logger by name.

Adapters for services live in the distribution ``leyden-loggers`` and are found through the entry points of the group
``leyden.loggers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.loggers.choice import default_logger as default_logger
    from leyden.core.loggers.choice import find_logger as find_logger
    from leyden.core.loggers.csv_logs import CSVLogger as CSVLogger
    from leyden.core.loggers.dummy import DummyExperiment as DummyExperiment
    from leyden.core.loggers.dummy import DummyLogger as DummyLogger
    from leyden.core.loggers.file_logger import FileLogger as FileLogger
    from leyden.core.loggers.logger import Logger as Logger
    from leyden.core.loggers.plaindata import flatten as flatten
    from leyden.core.loggers.plaindata import plain as plain
    from leyden.core.loggers.ranks import process_rank as process_rank
    from leyden.core.loggers.ranks import rank_zero_experiment as rank_zero_experiment
else:
    _LAZY = {
        "CSVLogger": "csv_logs",
        "DummyExperiment": "dummy",
        "DummyLogger": "dummy",
        "FileLogger": "file_logger",
        "Logger": "logger",
        "default_logger": "choice",
        "find_logger": "choice",
        "flatten": "plaindata",
        "plain": "plaindata",
        "process_rank": "ranks",
        "rank_zero_experiment": "ranks",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "CSVLogger",
    "DummyExperiment",
    "DummyLogger",
    "FileLogger",
    "Logger",
    "default_logger",
    "find_logger",
    "flatten",
    "plain",
    "process_rank",
    "rank_zero_experiment",
]
