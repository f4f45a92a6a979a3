# SPDX-License-Identifier: Apache-2.0
"""Parameters, batches and gradients in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from leyden.core.errors import MisconfigurationValueError
from leyden.core.precision.precision import Precision, default_dtype
from leyden.core.transfer import apply_to_tensors

_DTYPES = {"16-true": torch.float16, "bf16-true": torch.bfloat16}


class HalfPrecision(Precision):
    """Everything in 16 bits: half of the memory, and numbers of few digits, also in the optimiser.

    Args:
        precision: ``"bf16-true"`` or ``"16-true"``.

    Raises:
        MisconfigurationValueError: It is neither.

    Examples:
        >>> import torch
        >>> from leyden.core.precision import HalfPrecision
        >>> half = HalfPrecision("bf16-true")
        >>> half.convert_module(torch.nn.Linear(1, 1)).weight.dtype
        torch.bfloat16
        >>> half.convert_input({"x": torch.ones(1), "y": torch.ones(1, dtype=torch.long)})["y"].dtype
        torch.int64
    """

    def __init__(self, precision: str = "16-true") -> None:
        if precision not in _DTYPES:
            raise MisconfigurationValueError(f"`precision` must be one of {sorted(_DTYPES)}; got {precision!r}.")
        self.precision, self.dtype = precision, _DTYPES[precision]

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its floating-point parameters and buffers in 16 bits."""
        return module.to(self.dtype)

    def convert_input(self, data: Any) -> Any:
        """Return a batch with its floating-point tensors in 16 bits."""
        return apply_to_tensors(data, lambda x: x.to(self.dtype) if x.is_floating_point() else x)

    def convert_output(self, data: Any) -> Any:
        """Return outputs in the default dtype."""
        wide = torch.get_default_dtype()
        return apply_to_tensors(data, lambda x: x.to(wide) if x.is_floating_point() else x)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Make new tensors in 16 bits."""
        return default_dtype(self.dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        """Make tensors that a step makes in 16 bits."""
        return default_dtype(self.dtype)
