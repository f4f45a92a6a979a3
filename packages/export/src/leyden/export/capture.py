# SPDX-License-Identifier: Apache-2.0
"""Capture forward once as a graph, and read which sizes the graph was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leyden.export.errors import ExportError, UnsupportedModuleError
from leyden.export.quiet import quiet
from leyden.export.report import Hazard
from leyden.export.sizes import Axis
from leyden.export.subject import Subject, default_place

# How far assumptions are tried out size by size; beyond, only at the numbers that stand in them.
_NEAR = 65


def capture(
    subject: Subject, tensors: Sequence[Tensor], axes: Sequence[Axis], hazards: tuple[Hazard, ...]
) -> torch.export.ExportedProgram:
    """Trace the module with the axes free and everything else fixed.

    Args:
        subject: The module, isolated.
        tensors: The enlarged example.
        axes: The free sizes.
        hazards: What an error shows as a possible reason.

    Raises:
        UnsupportedModuleError: If forward can not be traced.
    """
    dims: list[dict[int, Any]] = [dict.fromkeys(range(t.ndim), torch.export.Dim.STATIC) for t in tensors]
    for axis in axes:
        for index, dim in axis.places:
            dims[index][dim] = torch.export.Dim.AUTO
    try:
        with quiet():
            return torch.export.export(subject, tuple(tensors), dynamic_shapes={"tensors": tuple(dims)}, strict=False)
    except ExportError:
        raise
    except Exception as error:
        name = type(subject.module).__name__
        message = f"{name}.forward can not be captured as a graph: {_reason(error)}"
        for hazard in hazards:
            message += f"\n  possible reason: {hazard}"
        if not hazards:
            message += f"\n  forward begins at {default_place(subject.module)}"
        message += (
            "\nA graph holds no Python: choose between tensors with torch.where or torch.cond instead of if, and keep "
            "numbers that depend on the input as tensors."
        )
        raise UnsupportedModuleError(message, hazards) from error


def _reason(error: Exception) -> str:
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return "a branch or a size depends on the values of a tensor"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


@dataclass(frozen=True)
class Made:
    """What sizes a graph was made for, along one axis.

    A limit explains and says where to look; whether the file is right beyond it, running it decides: an LSTM is called
    fixed in its length here, and answers every length.

    Attributes:
        low: Smallest size.
        high: Largest size, or None.
        edges: Sizes at which one of the tracer's assumptions ends, such as 8 after ``x.shape[0] % 8 != 0``.
    """

    low: int
    high: int | None
    edges: tuple[int, ...]


def made_for(program: torch.export.ExportedProgram, axes: Sequence[Axis]) -> dict[str, Made]:
    """Return the sizes that the graph was made for, by axis."""
    inputs = torch.export.graph_signature.InputKind.USER_INPUT
    placeholders = (node for node in program.graph.nodes if node.op == "placeholder")
    shapes = [
        node.meta["val"].shape
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)
        if spec.kind is inputs
    ]
    sizes = {axis.name: shapes[axis.places[0][0]][axis.places[0][1]] for axis in axes}
    symbols = {size.node.expr: axis.size for axis in axes if isinstance(size := sizes[axis.name], torch.SymInt)}
    found = {}
    for axis in axes:
        size = sizes[axis.name]
        if isinstance(size, int):
            found[axis.name] = Made(size, size, ())
            continue
        low, high = _range(program.range_constraints.get(size.node.expr))
        found[axis.name] = Made(low, high, _edges(size.node, symbols))
    return found


def _range(known: Any) -> tuple[int, int | None]:
    if known is None:
        return 1, None
    # Sizes 0 and 1 are left out by every capture, whatever forward does with them.
    low = 1 if known.lower <= 2 else int(known.lower)
    return low, int(known.upper) if known.upper.is_Integer and known.upper < 2**31 else None


def _edges(node: Any, symbols: Mapping[Any, int]) -> tuple[int, ...]:
    """Return, for each assumption about this size, the nearest sizes below and above that break it."""
    symbol, example = node.expr, symbols[node.expr]
    edges = set()
    for guard in node.shape_env.guards:
        free = guard.expr.free_symbols
        if symbol not in free or not free <= set(symbols):
            continue
        rest = guard.expr.subs({other: size for other, size in symbols.items() if other != symbol})
        numbers = {int(atom) + step for atom in rest.atoms() if atom.is_Integer for step in (-1, 0, 1)}
        candidates = sorted({*range(1, _NEAR), *(n for n in numbers if n >= 1)}, key=lambda n: abs(n - example))
        for side in ([n for n in candidates if n < example], [n for n in candidates if n > example]):
            edges.update(next(([n] for n in side if _breaks(rest, symbol, n)), []))
    return tuple(sorted(edges))


def _breaks(expression: Any, symbol: Any, size: int) -> bool:
    try:
        # sympy's false is an object of its own; an expression that stays open is neither.
        return bool(expression.subs(symbol, size) == False)  # noqa: E712
    except (ArithmeticError, AssertionError, ValueError, TypeError):
        return False
