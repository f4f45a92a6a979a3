# SPDX-License-Identifier: Apache-2.0
"""Experiment loggers: thin adapters over each service's own client, beside core's base class and CSV logger."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.loggers.csv_logs import CSVLogger as CSVLogger
    from leyden.core.loggers.logger import Logger as Logger
    from leyden.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger

    __version__: str
else:
    _LAZY = {
        "CSVLogger": "leyden.core.loggers.csv_logs",
        "Logger": "leyden.core.loggers.logger",
        "TensorBoardLogger": "leyden.loggers.tensorboard",
    }

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            value = version("leyden-loggers")
        elif name in _LAZY:
            from importlib import import_module

            value = getattr(import_module(_LAZY[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ["CSVLogger", "Logger", "TensorBoardLogger"]
