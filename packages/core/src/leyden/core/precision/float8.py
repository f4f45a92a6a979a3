# SPDX-License-Identifier: Apache-2.0
"""Training with matrix products in 8 bits (Micikevicius et al., "FP8 formats for deep learning", 2022), by torchao."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, MissingExtraError, warn
from leyden.core.precision.mixed import MixedPrecision

_RECIPES = ("tensorwise", "rowwise", "rowwise_with_gw_hp")


class Float8Precision(MixedPrecision):
    """Linear layers multiply in 8 bits, the rest runs in bfloat16 where that is safe, parameters stay in 32 bits.

    A linear layer takes part if both of its sizes are multiples of 16, which the hardware asks for. Its inputs, weights
    and gradients are scaled and rounded anew in each step, so there is no state to keep: a checkpoint is that of the
    plain model. When the run ends, the layers are plain ones again. It is meant for large layers under
    ``torch.compile``: small ones become slower.

    Args:
        recipe: What shares a scale: ``"tensorwise"`` a whole tensor (fastest), ``"rowwise"`` a row (more exact),
            ``"rowwise_with_gw_hp"`` a row, with the gradients of weights in bfloat16 (most exact).
        module_filter_fn: Which of these layers take part; it is given a layer and its name. All if None.
        device: Type of the device, such as ``"cuda"``; ``"auto"`` looks where the module stands at the first step.

    Raises:
        MisconfigurationValueError: There is no such recipe.
        MissingExtraError: torchao is not installed.

    Examples:
        >>> import torch
        >>> from leyden.core.precision import Float8Precision
        >>> fp8 = Float8Precision(module_filter_fn=lambda layer, name: name != "2", device="cpu")
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
        >>> [type(layer).__name__ for layer in fp8.convert_module(net)]
        ['Float8Linear', 'ReLU', 'Linear']
    """

    def __init__(
        self,
        recipe: str = "tensorwise",
        module_filter_fn: Callable[[nn.Module, str], bool] | None = None,
        device: str = "auto",
    ) -> None:
        if recipe not in _RECIPES:
            raise MisconfigurationValueError(f"`recipe` must be one of {', '.join(_RECIPES)}; got {recipe!r}.")
        need_torchao(f"{type(self).__name__}({recipe!r})")
        super().__init__("bf16-mixed", "cpu" if device == "auto" else device)
        self.precision, self.recipe, self._filter = "fp8", recipe, module_filter_fn
        self._found_device = device != "auto"
        self._module: nn.Module | None = None
        self._undo: list[Callable[[], None]] = []

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module, whose linear layers now multiply in 8 bits.

        Raises:
            MisconfigurationException: The device cannot do it.
        """
        self._module = module
        if self._found_device:
            try_out(self.recipe, self.device)
        for linear in [part for name, part in module.named_modules() if self._takes_part(part, name)]:
            self._undo.append(switch(linear, self.recipe))
        if not self._undo:
            warn(
                "LY-P010",
                "`precision='fp8'` found no linear layer to run in 8 bits: it takes `torch.nn.Linear` whose"
                " `in_features` and `out_features` are multiples of 16 and that `module_filter_fn` lets pass. The run"
                " is one of 'bf16-mixed'.",
            )
        return module

    def _takes_part(self, part: nn.Module, name: str) -> bool:
        # a subclass, or a layer whose weight is computed, has a way of its own that would be lost
        if type(part) is not nn.Linear or "weight" not in part._parameters:
            return False
        fits = part.in_features % 16 == 0 and part.out_features % 16 == 0
        return fits and (self._filter is None or bool(self._filter(part, name)))

    def forward_context(self) -> AbstractContextManager[Any]:
        """Run operations in the format that suits each.

        Raises:
            MisconfigurationException: The device, met here for the first time, cannot do it.
        """
        if not self._found_device and self._module is not None:
            first = next(self._module.parameters(), None)
            self.device = "cpu" if first is None else first.device.type
            try_out(self.recipe, self.device)
            self._found_device = True
        return super().forward_context()

    def teardown(self) -> None:
        """Make plain linear layers of those that were changed."""
        for undo in self._undo:
            undo()
        self._undo, self._module = [], None


def need_torchao(what: str) -> None:
    """Make sure that torchao is installed, without importing it.

    Raises:
        MissingExtraError: It is not.
    """
    if importlib.util.find_spec("torchao") is None:
        raise MissingExtraError(f'`{what}` needs the package torchao: pip install "leyden-core[quant]".')


def torchao(room: str) -> Any:
    """Return one of torchao's modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own code
        return importlib.import_module(f"torchao.{room}")


def try_out(recipe: str, device: str) -> None:
    """Take one small step in 8 bits on a device.

    Raises:
        MisconfigurationException: The device refuses.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # no random number is drawn: a run stays the same with and without this
            linear = nn.Linear(16, 16, bias=False, device="meta").to_empty(device=device)
            nn.init.ones_(linear.weight)
            switch(linear, recipe)
            with torch.autocast(device, torch.bfloat16):
                linear(torch.ones(16, 16, device=device)).sum().backward()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise MisconfigurationException(
            f"`precision='fp8'` with the recipe {recipe!r} does not run on this device ({device}): {error} Matrix"
            " products in 8 bits need an NVIDIA GPU of compute capability 8.9 (rows: 9.0) or an AMD MI300, or the CPU"
            " to try them out. Use `precision='bf16-mixed'` here."
        ) from error


def switch(linear: nn.Linear, recipe: str) -> Callable[[], None]:
    """Let a linear layer multiply in 8 bits; it stays the same object, with its parameters, hooks and names.

    Returns:
        What makes it a plain layer again.
    """
    ao = torchao("float8")
    # products over the samples of a batch need a multiple of 16 as well, whatever the batch size
    config = replace(ao.Float8LinearConfig.from_recipe_name(recipe), pad_inner_dim=True)
    model = ao.convert_to_float8_training(linear, config=config)
    kind, added = _following_autocast(model.__class__), vars(model).keys() - vars(linear).keys()
    vars(linear).update({name: vars(model)[name] for name in added})
    linear.__class__ = kind

    def undo() -> None:
        # what shards parameters has a class of its own, and keeps what it shards
        if type(linear) is kind:
            linear.__class__ = nn.Linear
            for name in added:
                del vars(linear)[name]

    return undo


@cache
def _following_autocast(kind: type[nn.Linear]) -> type[nn.Linear]:
    """Return torchao's layer as it runs in autocast on any device, also in inference mode; its own does on CUDA."""

    def forward(self: nn.Linear, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                return forward(self, input)
        device = input.device.type
        if not torch.is_autocast_enabled(device):
            return kind.forward(self, input)
        input = input.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            return kind.forward(self, input)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
