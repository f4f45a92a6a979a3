# SPDX-License-Identifier: Apache-2.0
"""Number formats by the names that the flag ``precision`` takes."""

from __future__ import annotations

from typing import Any

from leyden.core.errors import MisconfigurationValueError, MissingExtraError, warn
from leyden.core.precision.double import DoublePrecision
from leyden.core.precision.float8 import Float8Precision
from leyden.core.precision.fsdp import FSDPPrecision
from leyden.core.precision.half import HalfPrecision
from leyden.core.precision.mixed import MixedPrecision
from leyden.core.precision.precision import Precision
from leyden.core.precision.xla import XLAPrecision

PRECISIONS = (
    "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "fp8", "transformer-engine",
    "transformer-engine-float16", "16", "bf16", "32", "64",
)  # fmt: skip
_ALIASES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


def choose_precision(given: Any, device_type: str, fsdp: bool = False) -> Precision:
    """Return the format that the flag ``precision`` asks for.

    Args:
        given: The flag; None for 32 bits.
        device_type: Type of the device, such as ``"cpu"``.
        fsdp: Whether the strategy casts parameters itself, by a policy that it reads off the format's name.

    Raises:
        MisconfigurationValueError: There is no such format.
        MissingExtraError: The format needs a package that is not here.
    """
    if given is None:
        return XLAPrecision() if device_type == "xla" else Precision()
    if isinstance(given, bool) or not isinstance(given, (str, int)) or str(given) not in PRECISIONS:
        raise MisconfigurationValueError(
            f"Precision {given!r} is invalid. Allowed precision values: {', '.join(PRECISIONS)}."
        )
    name = _ALIASES.get(str(given), str(given))
    if name.startswith("transformer-engine"):
        raise MissingExtraError(
            f"`precision={given!r}` needs the package transformer_engine, which has no place here. For 8 bits use"
            " `precision='fp8'`, which needs torchao: pip install \"leyden-core[quant]\"."
        )
    if device_type == "xla":
        return XLAPrecision(name)
    if name == "fp8":
        return Float8Precision(device=device_type)
    if name == "16-mixed" and device_type == "cpu":
        warn(
            "LY-P001",
            "You passed `Trainer(accelerator='cpu', precision='16-mixed')` but AMP with fp16 is not supported on CPU."
            " Using `precision='bf16-mixed'` instead.",
        )
        name = "bf16-mixed"
    if name.endswith("-mixed"):
        return FSDPPrecision(name, device_type) if fsdp else MixedPrecision(name, device_type)
    if name in ("16-true", "bf16-true"):
        return HalfPrecision(name)
    return DoublePrecision() if name == "64-true" else Precision()
