# SPDX-License-Identifier: Apache-2.0
"""How a run spreads over devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.strategies.ddp import DDPStrategy as DDPStrategy
    from leyden.core.strategies.dp import DataParallelStrategy as DataParallelStrategy
    from leyden.core.strategies.fsdp import FSDPStrategy as FSDPStrategy
    from leyden.core.strategies.parallel import ParallelStrategy as ParallelStrategy
    from leyden.core.strategies.registry import StrategyRegistry as StrategyRegistry
    from leyden.core.strategies.single_device import SingleDeviceStrategy as SingleDeviceStrategy
    from leyden.core.strategies.strategy import Strategy as Strategy
else:
    _LAZY = {
        "DDPStrategy": "leyden.core.strategies.ddp",
        "DataParallelStrategy": "leyden.core.strategies.dp",
        "FSDPStrategy": "leyden.core.strategies.fsdp",
        "ParallelStrategy": "leyden.core.strategies.parallel",
        "SingleDeviceStrategy": "leyden.core.strategies.single_device",
        "Strategy": "leyden.core.strategies.strategy",
        "StrategyRegistry": "leyden.core.strategies.registry",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "DDPStrategy",
    "DataParallelStrategy",
    "FSDPStrategy",
    "ParallelStrategy",
    "SingleDeviceStrategy",
    "Strategy",
    "StrategyRegistry",
]
