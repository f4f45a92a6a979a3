# SPDX-License-Identifier: Apache-2.0
"""Profilers: where the time of a run goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.profilers.advanced import AdvancedProfiler as AdvancedProfiler
    from leyden.core.profilers.profiler import PassThroughProfiler as PassThroughProfiler
    from leyden.core.profilers.profiler import Profiler as Profiler
    from leyden.core.profilers.pytorch import PyTorchProfiler as PyTorchProfiler
    from leyden.core.profilers.simple import SimpleProfiler as SimpleProfiler
else:
    _LAZY = {
        "AdvancedProfiler": "leyden.core.profilers.advanced",
        "PassThroughProfiler": "leyden.core.profilers.profiler",
        "Profiler": "leyden.core.profilers.profiler",
        "PyTorchProfiler": "leyden.core.profilers.pytorch",
        "SimpleProfiler": "leyden.core.profilers.simple",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "AdvancedProfiler",
    "PassThroughProfiler",
    "Profiler",
    "PyTorchProfiler",
    "SimpleProfiler",
]
