# SPDX-License-Identifier: Apache-2.0
"""Number formats under the name of the reference's folder."""

from leyden.core.precision.double import DoublePrecision as DoublePrecision
from leyden.core.precision.float8 import Float8Precision as Float8Precision
from leyden.core.precision.fsdp import FSDPPrecision as FSDPPrecision
from leyden.core.precision.half import HalfPrecision as HalfPrecision
from leyden.core.precision.mixed import MixedPrecision as MixedPrecision
from leyden.core.precision.precision import Precision as Precision
from leyden.core.precision.quantized import Quantized as Quantized
from leyden.core.precision.xla import XLAPrecision as XLAPrecision

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
