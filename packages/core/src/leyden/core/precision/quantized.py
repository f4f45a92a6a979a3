# SPDX-License-Identifier: Apache-2.0
"""Frozen weights of 8 or 4 bits, by torchao (QLoRA: Dettmers et al., 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, warn
from leyden.core.precision.float8 import need_torchao, torchao
from leyden.core.precision.half import HalfPrecision
from leyden.core.precision.precision import Precision

_DTYPES = {torch.bfloat16: "bf16-true", torch.float16: "16-true"}
_BLOCK = 64  # weights that share a scale in "nf4"


class Quantized(Precision):
    """Linear layers whose weights have 8 or 4 bits: to evaluate with less memory, or to train what is around them.

    Weights are rounded when the module is brought to its device, after a checkpoint was loaded, and are plain again,
    rounded as they are, when the run ends. A state dict always holds plain tensors under plain names: checkpoints of
    plain models load into a quantised one, and its own load anywhere.

    If some linear layers are frozen (``weight.requires_grad`` is False), these are quantised and the others stay as
    they are: a frozen model with adapters around it trains. If none is frozen, all are quantised and training is
    refused. A layer stays plain that is of a subclass or shares its weight with another module, and under ``"nf4"`` one
    whose number of weights is no multiple of 64.

    Args:
        mode: What a weight becomes, and its largest error on the way, in parts of the largest weight of its row or
            block: ``"int8"`` (1/254), ``"float8"`` (1/28), ``"nf4"`` (4 bits, 1/6). ``"int8-dynamic"`` rounds what a
            layer is given as well and multiplies in 8 bits, for evaluation only.
        dtype: What the rest of the module and its batches become: `torch.bfloat16`, `torch.float16`, or None for what
            they are.
        ignore_modules: Names of modules, or whole parts of dotted names, that stay as they are: ``{"lm_head"}``.

    Raises:
        MisconfigurationValueError: There is no such mode or ``dtype``.
        MissingExtraError: torchao is not installed.

    Examples:
        >>> import torch
        >>> from leyden.core.precision import Quantized
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
        >>> quantized = Quantized("int8", ignore_modules={"2"})
        >>> [type(p).__name__ for p in quantized.convert_module(net).parameters()]
        ['Int8Tensor', 'Parameter', 'Parameter', 'Parameter']
        >>> type(net.state_dict()["0.weight"]).__name__
        'Tensor'
    """

    def __init__(
        self, mode: str = "int8", dtype: torch.dtype | None = None, ignore_modules: Iterable[str] | None = None
    ) -> None:
        if mode not in _MODES:
            raise MisconfigurationValueError(f"`mode` must be one of {', '.join(_MODES)}; got {mode!r}.")
        if dtype is not None and dtype not in _DTYPES:
            raise MisconfigurationValueError(f"`dtype` must be torch.bfloat16, torch.float16 or None; got {dtype}.")
        need_torchao(f"{type(self).__name__}({mode!r})")
        self.precision, self.mode, self.dtype = mode, mode, dtype
        self.ignore_modules = {ignore_modules} if isinstance(ignore_modules, str) else set(ignore_modules or ())
        self._rest = Precision() if dtype is None else HalfPrecision(_DTYPES[dtype])
        self._undo: list[Callable[[], object]] = []
        self._layers: set[nn.Module] = set()
        self._refusal: str | None = None

    # -- the module ----------------------------------------------------------------------------------------------------

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Return the module with its linear layers quantised.

        Raises:
            MisconfigurationException: torchao cannot do it on this machine.
        """
        module = self._rest.convert_module(module)
        chosen = self._chosen(module)
        self._layers |= set(chosen.values())
        if not self._layers:
            warn(
                "LY-P011",
                f"`{type(self).__name__}({self.mode!r})` found no linear layer to quantise: it takes `torch.nn.Linear`"
                " that `ignore_modules` does not name, whose weight is its own and whose sizes fit.",
            )
        self._refusal = self._why_not_trained(chosen) or self._refusal
        for linear in chosen.values():
            self._undo.append(quantise(linear, self.mode))
        self._undo.append(keep_from_ddp(module, [f"{name}.weight" if name else "weight" for name in chosen]))
        return module

    def _chosen(self, module: nn.Module) -> dict[str, nn.Linear]:
        owners = Counter(id(p) for part in module.modules() for p in part._parameters.values())
        fit = {name: part for name, part in module.named_modules() if self._fits(part, name, owners)}
        frozen = {name: part for name, part in fit.items() if not part.weight.requires_grad}
        # set up a second time, what was frozen is quantised already, and the rest still is what trains
        again = any(part in self._layers for part in module.modules())
        return frozen if frozen or again else fit

    def _fits(self, part: nn.Module, name: str, owners: Mapping[int, int]) -> TypeGuard[nn.Linear]:
        if type(part) is not nn.Linear or any(f".{ignored}." in f".{name}." for ignored in self.ignore_modules):
            return False
        # nor one whose weight is computed, tied, or quantised already
        weight = part._parameters.get("weight")
        if type(weight) is not nn.Parameter or owners[id(weight)] > 1 or not weight.is_floating_point():
            return False
        return self.mode != "nf4" or weight.numel() % _BLOCK == 0

    def _why_not_trained(self, chosen: Mapping[str, nn.Linear]) -> str | None:
        """Return why a backward pass makes no sense, or None if it does."""
        what = f"`{type(self).__name__}({self.mode!r})`"
        if self.mode == "int8-dynamic":
            return f"{what} is for evaluation: it has no backward pass. Use 'int8', 'float8' or 'nf4' around adapters."
        trained = [f"{name}.weight" for name, linear in chosen.items() if linear.weight.requires_grad]
        if not trained:
            return None
        return (
            f"{what} rounded weights that were to be trained: {', '.join(trained[:3])}{', ..' * (len(trained) > 3)}."
            " Quantised weights do not train. Freeze them before the run (`requires_grad_(False)`) and train what is"
            " around them, or leave them out by `ignore_modules`. To train linear layers in 8 bits use"
            " `precision='fp8'`."
        )

    def teardown(self) -> None:
        """Make plain weights of those that were quantised, with the values that they have."""
        for undo in reversed(self._undo):
            undo()
        self._undo, self._layers, self._refusal = [], set(), None

    # -- a step --------------------------------------------------------------------------------------------------------

    def pre_backward(self, tensor: Tensor, module: nn.Module | None = None) -> Tensor:
        """Return the loss.

        Raises:
            MisconfigurationException: What was quantised was to be trained.
        """
        if self._refusal is not None:
            raise MisconfigurationException(self._refusal)
        return tensor

    def convert_input(self, data: Any) -> Any:
        """Return a batch with its floating-point tensors in ``dtype``."""
        return self._rest.convert_input(data)

    def convert_output(self, data: Any) -> Any:
        """Return outputs in the default dtype where ``dtype`` changed them."""
        return self._rest.convert_output(data)

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Make new tensors in ``dtype``."""
        return self._rest.tensor_init_context()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Make tensors that a step makes in ``dtype``."""
        return self._rest.forward_context()

    def replaces(self, name: str) -> bool:
        """Tell whether this format has a part in a step; without ``dtype`` batches and new tensors stay as they are."""
        return super().replaces(name) and (name in ("convert_module", "pre_backward") or self._rest.replaces(name))


# -- a weight ----------------------------------------------------------------------------------------------------------


def quantise(linear: nn.Linear, mode: str) -> Callable[[], None]:
    """Quantise a layer's weight and freeze it; its state dict stays a plain one.

    Returns:
        What makes it plain again.

    Raises:
        MisconfigurationException: torchao refuses.
    """
    trained = linear.weight.requires_grad
    linear.weight = nn.Parameter(_quantised(linear.weight, mode), requires_grad=False)
    layer: Any = linear  # torch has no types for these two
    saving = layer.register_state_dict_post_hook(_save_plain)
    loading = layer.register_load_state_dict_pre_hook(partial(_load_plain, mode))

    def undo() -> None:
        saving.remove()
        loading.remove()
        linear.weight = nn.Parameter(plain(linear.weight), requires_grad=trained)

    return undo


def keep_from_ddp(module: nn.Module, names: list[str]) -> Callable[[], object]:
    """Let `DistributedDataParallel` not send parameters, which are frozen and the same on all processes: it could not.

    Returns:
        What takes that back.
    """
    # the attribute where it looks for names
    own, key = vars(module), "_ddp_params_and_buffers_to_ignore"
    before = own.get(key)
    own[key] = [*(before or ()), *names]
    return partial(own.pop, key, None) if before is None else partial(own.__setitem__, key, before)


def plain(weight: Tensor) -> Tensor:
    """Return the values of a quantised weight as a plain tensor of its dtype."""
    weight = weight.detach()
    read = getattr(weight, "get_original_weight", weight.dequantize)  # 4 bits have a name of their own for it
    values: Tensor = read().to(weight.dtype)
    return values


def _save_plain(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    state_dict[f"{prefix}weight"] = plain(state_dict[f"{prefix}weight"])


def _load_plain(mode: str, module: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Quantise what is loaded, which `torch.nn.Module.load_state_dict` then copies; it tells of other shapes."""
    own, given = module.get_parameter("weight"), state_dict.get(f"{prefix}weight")
    if given is not None and given.shape == own.shape:
        state_dict[f"{prefix}weight"] = _quantised(given.to(own.device, own.dtype), mode)


def _quantised(weight: Tensor, mode: str) -> Tensor:
    try:
        rounded: Tensor = _MODES[mode](weight.detach())
        return rounded
    except (AssertionError, RuntimeError, ValueError) as error:
        raise MisconfigurationException(
            f"torchao cannot turn weights of {weight.dtype} on {weight.device.type} into {mode!r} here: {error}"
        ) from error


# rounding what was rounded before has to give the same weights, or every run and every checkpoint would wear them out


def _int8(weight: Tensor, **inputs: Any) -> Any:
    ao = torchao("quantization")
    symmetric = torchao("quantization.quant_primitives").MappingType.SYMMETRIC_NO_CLIPPING_ERR
    return ao.Int8Tensor.from_hp(weight, ao.PerRow(), mapping_type=symmetric, **inputs)


def _int8_dynamic(weight: Tensor) -> Any:
    inputs = torchao("quantization.quantize_.workflows").QuantizeTensorToInt8Kwargs
    return _int8(weight, act_quant_kwargs=inputs(granularity=torchao("quantization").PerRow()))


def _float8(weight: Tensor) -> Any:
    ao = torchao("quantization")
    # a row of zeros has a scale as well, or it would become no number
    least = torch.finfo(torch.float8_e4m3fn).max * torch.finfo(weight.dtype).tiny
    return ao.Float8Tensor.from_hp(weight, granularity=ao.PerRow(), hp_value_lb=least)


def _nf4(weight: Tensor) -> Any:
    # torchao rounds the scales of several blocks together, and cuts the largest off: one scale at a time, put right,
    # it stays what it is
    whole = torchao("quantization").to_nf4(weight, _BLOCK, 1)
    whole.quantization_factor *= torch.where(whole.quantized_scalers == 127, 127 / 128, 1)
    return whole


_MODES: dict[str, Callable[[Tensor], Any]] = {
    "int8": _int8,
    "int8-dynamic": _int8_dynamic,
    "float8": _float8,
    "nf4": _nf4,
}
