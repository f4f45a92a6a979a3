# SPDX-License-Identifier: Apache-2.0
"""What can take the place of a part of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.precision.double import DoublePrecision as DoublePrecision
    from leyden.core.precision.float8 import Float8Precision as Float8Precision
    from leyden.core.precision.fsdp import FSDPPrecision as FSDPPrecision
    from leyden.core.precision.half import HalfPrecision as HalfPrecision
    from leyden.core.precision.mixed import MixedPrecision as MixedPrecision
    from leyden.core.precision.precision import Precision as Precision
    from leyden.core.precision.quantized import Quantized as Quantized
    from leyden.core.precision.xla import XLAPrecision as XLAPrecision
else:
    _LAZY = {
        "DoublePrecision": "leyden.core.precision.double",
        "Float8Precision": "leyden.core.precision.float8",
        "FSDPPrecision": "leyden.core.precision.fsdp",
        "HalfPrecision": "leyden.core.precision.half",
        "MixedPrecision": "leyden.core.precision.mixed",
        "Precision": "leyden.core.precision.precision",
        "Quantized": "leyden.core.precision.quantized",
        "XLAPrecision": "leyden.core.precision.xla",
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
    "DoublePrecision",
    "FSDPPrecision",
    "Float8Precision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "Quantized",
    "XLAPrecision",
]
