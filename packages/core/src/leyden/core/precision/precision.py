# SPDX-License-Identifier: Apache-2.0
"""Number formats of a run: what is done to the module, the batches, the loss and the optimiser's step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

F = TypeVar("F", bound=Callable[..., Any])


class Precision:
    """The plain format: parameters, batches and gradients stay as they are, 32 bits by default.

    A format of one's own derives from it and overrides what it needs; what is not overridden costs a step nothing.

    Attributes:
        precision: Name of the format, as the Trainer's flag ``precision`` takes it.
        scaler: What scales the loss of a 16 bit format; None where nothing does.

    Examples:
        >>> import leyden.core as L
        >>> off = {"logger": False, "enable_checkpointing": False}
        >>> trainer = L.Trainer(max_epochs=1, **off)
        >>> trainer.precision_plugin.precision
        '32-true'
    """

    precision: str = "32-true"
    scaler: Any = None

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its parameters in this format."""
        return module

    def convert_input(self, data: Any) -> Any:
        """Return a batch with its floating-point tensors as the module wants them."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Return what a forward pass gave, as the user wants it: a loop of one's own under Fabric calls it."""
        return data

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Make new parameters in this format."""
        return self.tensor_init_context()

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Make new tensors in this format."""
        return nullcontext()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Run a step of the module in this format."""
        return nullcontext()

    def pre_backward(self, tensor: Tensor, module: nn.Module | None = None) -> Tensor:
        """Return what is differentiated in place of the loss."""
        return tensor

    def post_backward(self, tensor: Tensor, module: nn.Module | None = None) -> Tensor:
        """Return the loss after its backward pass."""
        return tensor

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        """Give gradients their true size, before anybody looks at them or clips them."""

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step an optimiser whose gradients stand."""
        return optimizer.step(**kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""

    def teardown(self) -> None:
        """Let go of what the format holds."""

    # -- how the loops use it ------------------------------------------------------------------------------------------

    def replaces(self, name: str) -> bool:
        """Tell whether this format, or an instance, has a method of its own of this name."""
        return getattr(getattr(self, name), "__func__", None) is not getattr(Precision, name)

    def around(self, call: F) -> F:
        """Return a function that runs in `forward_context`; the function itself where there is none."""
        if not self.replaces("forward_context"):
            return call

        def within(*args: Any, **kwargs: Any) -> Any:
            with self.forward_context():
                return call(*args, **kwargs)

        return within  # type: ignore[return-value]


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    """Return a context in which new floating-point tensors have a dtype."""
    return _DefaultDtype(dtype)


class _DefaultDtype(AbstractContextManager[None]):
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *args: object) -> None:
        torch.set_default_dtype(self.before)
