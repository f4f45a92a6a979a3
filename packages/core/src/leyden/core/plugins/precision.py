# SPDX-License-Identifier: Apache-2.0
"""Number formats under the name of the reference's folder."""

from leyden.core.precision.double import DoublePrecision as DoublePrecision
from leyden.core.precision.fsdp import FSDPPrecision as FSDPPrecision
from leyden.core.precision.half import HalfPrecision as HalfPrecision
from leyden.core.precision.mixed import MixedPrecision as MixedPrecision
from leyden.core.precision.precision import Precision as Precision

__all__ = ["DoublePrecision", "FSDPPrecision", "HalfPrecision", "MixedPrecision", "Precision"]
