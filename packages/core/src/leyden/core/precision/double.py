# SPDX-License-Identifier: Apache-2.0
"""Parameters, batches and gradients in 64 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.precision.precision import Precision, default_dtype
from leyden.core.transfer import apply_to_tensors


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


class DoublePrecision(Precision):
    """Everything in 64 bits.

    Examples:
        >>> import torch
        >>> from leyden.core.precision import DoublePrecision
        >>> DoublePrecision().convert_input([torch.ones(1), torch.ones(1, dtype=torch.complex64)])[1].dtype
        torch.complex128
    """

    precision = "64-true"

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its parameters and buffers in 64 bits."""
        return module.double()

    def convert_input(self, data: Any) -> Any:
        """Return a batch with its floating-point and complex tensors in 64 bits."""
        return apply_to_tensors(data, _wide)

    def convert_output(self, data: Any) -> Any:
        """Return outputs in the default dtype."""
        wide = torch.get_default_dtype()
        return apply_to_tensors(data, lambda x: x.to(wide) if x.is_floating_point() else x)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Make new tensors in 64 bits."""
        return default_dtype(torch.float64)

    def forward_context(self) -> AbstractContextManager[Any]:
        """Make tensors that a step makes in 64 bits."""
        return default_dtype(torch.float64)
