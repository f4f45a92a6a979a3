# SPDX-License-Identifier: Apache-2.0
"""Mixed formats where parameters are spread over processes: FSDP casts them when it gathers them."""

from __future__ import annotations

import torch

from leyden.core.precision.mixed import MixedPrecision


class FSDPPrecision(MixedPrecision):
    """A mixed format under `FSDPStrategy`: parameters travel and compute in 16 bits, gradients are added up in 32.

    The strategy reads the format's name and hands FSDP the policy. Autocast stands around the step, so that a loss is
    computed in 32 bits and targets stay as they are.

    Args:
        precision: ``"bf16-mixed"`` or ``"16-mixed"``.
        device: Type of the device, such as ``"cuda"``.
        scaler: What scales the loss of ``"16-mixed"``; made if None.

    Examples:
        >>> from leyden.core.precision import FSDPPrecision
        >>> FSDPPrecision("bf16-mixed").precision
        'bf16-mixed'
    """

    def __init__(self, precision: str, device: str = "cuda", scaler: torch.amp.GradScaler | None = None) -> None:
        super().__init__(precision, device, scaler)
