# SPDX-License-Identifier: Apache-2.0
"""Parameters in 32 bits, and what gains by it computed in 16 (`torch.autocast`; Micikevicius et al., 2018)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.precision.precision import Precision
from leyden.core.transfer import apply_to_tensors

_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class MixedPrecision(Precision):
    """Matrix products and convolutions in 16 bits, sums and parameters in 32.

    Args:
        precision: ``"bf16-mixed"`` or ``"16-mixed"``. The second scales the loss, because small gradients are no
            numbers in that format.
        device: Type of the device, such as ``"cuda"``.
        scaler: What scales the loss; made where it is needed if None.

    Attributes:
        scaler: The `torch.amp.GradScaler`; None for bfloat16.

    Raises:
        MisconfigurationValueError: ``precision`` is neither, or a scaler is given for bfloat16.

    Examples:
        >>> import torch
        >>> from leyden.core.precision import MixedPrecision
        >>> mixed = MixedPrecision("bf16-mixed", "cpu")
        >>> with mixed.forward_context():
        ...     torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype
        torch.bfloat16
    """

    def __init__(self, precision: str, device: str, scaler: torch.amp.GradScaler | None = None) -> None:
        if precision not in _DTYPES:
            raise MisconfigurationValueError(
                f"Passed `MixedPrecision(precision={precision!r})`. Precision must be '16-mixed' or 'bf16-mixed'."
            )
        if scaler is not None and precision == "bf16-mixed":
            raise MisconfigurationValueError(
                f"`precision='bf16-mixed'` does not use a scaler, found {scaler}: its numbers reach as far as 32 bits."
            )
        self.precision, self.device, self.dtype = precision, torch.device(device).type, _DTYPES[precision]
        self.scaler = torch.amp.GradScaler(self.device) if scaler is None and precision == "16-mixed" else scaler
        # an optimiser whose gradients have their true size already; a step ends that
        self._unscaled: set[int] = set()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Run operations in the format that suits each."""
        return torch.autocast(self.device, self.dtype)

    def convert_output(self, data: Any) -> Any:
        """Return outputs in the default dtype."""
        wide = torch.get_default_dtype()
        return apply_to_tensors(data, lambda x: x.to(wide) if x.is_floating_point() else x)

    def pre_backward(self, tensor: Tensor, module: nn.Module | None = None) -> Tensor:
        """Return the loss times the scale."""
        if self.scaler is None:
            return tensor
        scaled: Tensor = self.scaler.scale(tensor)
        return scaled

    def unscale_gradients(self, optimizer: Optimizer) -> None:
        """Divide gradients by the scale, once before each step."""
        if self.scaler is None or id(optimizer) in self._unscaled:
            return
        self.scaler.unscale_(optimizer)
        self._unscaled.add(id(optimizer))

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step, unless a gradient is infinite, and fit the scale to what was seen.

        Raises:
            MisconfigurationException: The optimiser runs the model itself.
        """
        if self.scaler is None:
            return optimizer.step(**kwargs)
        if isinstance(optimizer, torch.optim.LBFGS):
            raise MisconfigurationException(
                "AMP and the LBFGS optimizer are not compatible: it runs the model itself, and its gradients would have"
                " to be unscaled in between. Use `precision='bf16-mixed'`."
            )
        result = self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        self._unscaled.discard(id(optimizer))
        return result

    def replaces(self, name: str) -> bool:
        """Tell whether this format has a part in a step; without a scaler it has none but the forward pass."""
        scaling = ("pre_backward", "unscale_gradients", "optimizer_step")
        return super().replaces(name) and (self.scaler is not None or name not in scaling)

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and what it goes by."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scale."""
        if self.scaler is not None and state_dict:
            self.scaler.load_state_dict(state_dict)
