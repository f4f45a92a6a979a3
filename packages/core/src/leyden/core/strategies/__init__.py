# SPDX-License-Identifier: Apache-2.0
"""How a run spreads over devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.strategies.single_device import SingleDeviceStrategy as SingleDeviceStrategy
else:
    _LAZY = {"SingleDeviceStrategy": "leyden.core.strategies.single_device"}

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ["SingleDeviceStrategy"]
