# SPDX-License-Identifier: Apache-2.0
"""Number formats on devices of torch_xla, which compile what was asked for since the last step."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationValueError
from leyden.core.precision.half import HalfPrecision
from leyden.core.precision.precision import Precision

_FORMATS = ("32-true", "bf16-true", "16-true")


class XLAPrecision(Precision):
    """A true format on a device of torch_xla. After each step the device is told to compute what the step asked for.

    Args:
        precision: ``"32-true"``, ``"bf16-true"`` or ``"16-true"``.

    Raises:
        MisconfigurationValueError: It is none of these.

    Examples:
        >>> from leyden.core.precision import XLAPrecision
        >>> XLAPrecision("bf16-true").precision
        'bf16-true'
    """

    def __init__(self, precision: str = "32-true") -> None:
        if precision not in _FORMATS:
            raise MisconfigurationValueError(
                f"`precision={precision!r}` is not supported on XLA devices. `precision` must be one of:"
                f" {', '.join(_FORMATS)}."
            )
        self.precision = precision
        self._format = Precision() if precision == "32-true" else HalfPrecision(precision)

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its parameters in this format."""
        return self._format.convert_module(module)

    def convert_input(self, data: Any) -> Any:
        """Return a batch with its floating-point tensors as the module wants them."""
        return self._format.convert_input(data)

    def convert_output(self, data: Any) -> Any:
        """Return outputs in the default dtype."""
        return self._format.convert_output(data)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Make new tensors in this format."""
        return self._format.tensor_init_context()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Run a step of the module in this format; one without a backward pass is computed at its end."""
        return self._step()

    @contextmanager
    def _step(self) -> Generator[None, None, None]:
        with self._format.forward_context():
            yield
        if not torch.is_grad_enabled():
            _compute()

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step, and let the device compute."""
        result = optimizer.step(**kwargs)
        _compute()
        return result


def _compute() -> None:
    import_module("torch_xla").sync()
