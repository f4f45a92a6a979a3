# SPDX-License-Identifier: Apache-2.0
"""The contract of an exported file: which arguments it takes, which tensors cross the border, what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leyden.export.errors import ExportValueError
from leyden.export.report import Bound, bounds_from_plain
from leyden.export.structure import Tree, difference, flatten, rebuild


@dataclass(frozen=True)
class TensorSpec:
    """One tensor at the border of a file.

    Attributes:
        name: Its name in the graph, made from the argument and the keys that lead to it.
        dtype: Such as ``"float32"``.
        shape: Each size: a number, or the name of a free size. A name that is not among the bounds stands for a size
            that follows from the inputs.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Call:
    """One call of forward, taken apart.

    Attributes:
        signature: Signature of forward.
        tree: Structure of the arguments by name.
        tensors: The tensors in them.
        names: A name for each tensor.
    """

    signature: inspect.Signature
    tree: Tree
    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]


def bind(module: nn.Module, inputs: Any = None) -> Call:
    """Bind example inputs to the module's forward.

    Args:
        module: The module.
        inputs: A tuple of positional arguments; a dict of arguments by name if its keys are parameters of forward;
            anything else is the one argument. None takes the module's ``example_input_array``.
    """
    if inputs is None:
        inputs = getattr(module, "example_input_array", None)
        if inputs is None:
            raise ExportValueError(
                f"inputs is None and {type(module).__name__} has no example_input_array: pass inputs, a tuple of "
                "arguments or a dict of arguments by name"
            )
    signature = inspect.signature(module.forward)
    args: tuple[Any, ...] = inputs if isinstance(inputs, tuple) and not hasattr(inputs, "_fields") else (inputs,)
    kwargs: Mapping[str, Any] = {}
    if isinstance(inputs, dict) and inputs and set(inputs) <= set(signature.parameters):
        args, kwargs = (), inputs
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ExportValueError(f"inputs do not fit {type(module).__name__}.forward{signature}: {error}") from error
    bound.apply_defaults()
    tree, tensors, names = flatten(dict(bound.arguments), "inputs")
    if not tensors:
        raise ExportValueError("inputs hold no tensor, so the file would have no input")
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
            raise ExportValueError(
                f"input {name!r} is {tensor.dtype}, for which the CPU runtimes have no kernels: cast it"
            )
        if 0 in tensor.shape:
            raise ExportValueError(
                f"input {name!r} is empty ({tuple(tensor.shape)}): an example needs at least one element"
            )
    return Call(signature, tree, tuple(t.detach().to("cpu", copy=True) for t in tensors), tuple(names))


def arguments(call: Call, tensors: Sequence[Tensor]) -> inspect.BoundArguments:
    """Return the call's arguments with other tensors in their places."""
    bound = inspect.BoundArguments(call.signature, {})
    bound.arguments.update(rebuild(call.tree, tensors))
    return bound


@dataclass(frozen=True)
class Contract:
    """What a file promises; it is stored in the file.

    Attributes:
        signature: Signature of forward, without annotations.
        arguments: Structure of the arguments; constants in it are part of the contract.
        results: Structure of what forward returns.
        inputs: The tensors that go in.
        outputs: The tensors that come out.
        bounds: The free sizes.
    """

    signature: inspect.Signature
    arguments: Tree
    results: Tree
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: tuple[Bound, ...]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the tensors of a call, or say which argument breaks the contract."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ExportValueError(f"the call does not fit {self.signature}: {error}") from error
        bound.apply_defaults()
        tree, tensors, _ = flatten(_tensors_only(dict(bound.arguments)), "arguments")
        if text := difference(self.arguments, tree):
            raise ExportValueError(
                f"argument {text}; the structure and the constants of the export are part of the file"
            )
        self.check(tensors)
        return tensors

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Raise unless dtype and every size are as promised."""
        sizes: dict[str, tuple[int, str]] = {}
        bounds = {bound.name: bound for bound in self.bounds}
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            if str(tensor.dtype) != f"torch.{spec.dtype}":
                raise ExportValueError(f"argument {spec.name!r} must be {spec.dtype}, got {tensor.dtype}")
            shape = tuple(tensor.shape)
            if len(shape) != len(spec.shape):
                raise ExportValueError(
                    f"argument {spec.name!r} must have {len(spec.shape)} dimensions ({spec}), got {shape}"
                )
            for dim, (wanted, size) in enumerate(zip(spec.shape, shape, strict=True)):
                place = f"{spec.name}[{dim}]"
                if isinstance(wanted, int):
                    if size != wanted:
                        raise ExportValueError(f"size {place} must be {wanted}, got {size} in shape {shape}")
                    continue
                bound = bounds[wanted]
                if size < bound.low or (bound.high is not None and size > bound.high):
                    raise ExportValueError(f"size {place} is {size}, outside of what the module answers: {bound}")
                first, where = sizes.setdefault(wanted, (size, place))
                if first != size:
                    raise ExportValueError(
                        f"sizes {where} and {place} must be equal ({wanted}), got {first} and {size}"
                    )

    def to_plain(self) -> dict[str, Any]:
        """Return the contract as JSON data."""
        return {
            "parameters": [_parameter_to_plain(p) for p in self.signature.parameters.values()],
            "arguments": self.arguments,
            "results": self.results,
            "inputs": [asdict(spec) for spec in self.inputs],
            "outputs": [asdict(spec) for spec in self.outputs],
            "bounds": [asdict(bound) for bound in self.bounds],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Contract:
        """Rebuild a contract from JSON data."""
        return cls(
            signature=inspect.Signature([_parameter_from_plain(p) for p in plain["parameters"]]),
            arguments=plain["arguments"],
            results=plain["results"],
            inputs=_specs(plain["inputs"]),
            outputs=_specs(plain["outputs"]),
            bounds=bounds_from_plain(plain["bounds"]),
        )


def _specs(plain: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in plain)


def _tensors_only(value: Any) -> Any:
    """Turn NumPy arrays into tensors, so that a caller needs no torch of his own."""
    if type(value).__module__ == "numpy" and hasattr(value, "__array__"):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: _tensors_only(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_tensors_only, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_tensors_only, value))
    return value


def _parameter_to_plain(parameter: inspect.Parameter) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": parameter.name, "kind": parameter.kind.name}
    if parameter.default is not parameter.empty:
        try:
            tree, tensors, _ = flatten(parameter.default, parameter.name)
        except ExportValueError:
            return plain
        # A default that holds a tensor or an object is not repeated in the file: loading asks for the argument.
        if not tensors:
            plain["default"] = tree
    return plain


def _parameter_from_plain(plain: Mapping[str, Any]) -> inspect.Parameter:
    default = rebuild(plain["default"], ()) if "default" in plain else inspect.Parameter.empty
    return inspect.Parameter(plain["name"], inspect._ParameterKind[plain["kind"]], default=default)
