# SPDX-License-Identifier: Apache-2.0
"""The inputs on which a file and its module are compared: other values, and other sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from leyden.export.capture import Made
from leyden.export.sizes import Axis, resized, too_large

VALUES = ("other", "negated", "zero", "large", "constant")


def value_cases(tensors: Sequence[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the enlarged example with other values.

    Floating-point values are drawn anew with the example's mean and spread, negated, zero, a hundred times as large,
    and all equal. Integers only take values that the example has, since they may be indices.
    """
    for kind in VALUES:
        yield kind, [_valued(tensor, kind, seed) for seed, tensor in enumerate(tensors)]


def size_cases(
    tensors: Sequence[Tensor], axes: Sequence[Axis], made: Mapping[str, Made]
) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the enlarged example with other sizes, one axis at a time and all at their smallest."""
    fresh = [_valued(tensor, "other", 100 + seed) for seed, tensor in enumerate(tensors)]
    for axis in axes:
        for size in wanted_sizes(tensors, axis, made.get(axis.name)):
            yield f"{axis.name}={size}", resized(fresh, axis.places, size)
    if len(axes) > 1:
        smallest = fresh
        for axis in axes:
            smallest = resized(smallest, axis.places, axis.low)
        yield "all sizes at their smallest", smallest


def wanted_sizes(tensors: Sequence[Tensor], axis: Axis, made: Made | None) -> list[int]:
    """Sizes 1, 2 and beyond the example, and both sides of every limit and assumption of the capture."""
    wanted = {1, 2, axis.low, axis.low + 1, axis.example + 3, axis.high or axis.low}
    if made is not None:
        wanted |= {size + step for size in (made.low, made.high or 1) for step in (-1, 0, 1)} | set(made.edges)
    return _answered(tensors, axis, wanted)


def edge_sizes(tensors: Sequence[Tensor], axis: Axis, made: Made) -> list[int]:
    """Sizes just beyond what the capture assumed."""
    return _answered(tensors, axis, {made.low - 1, (made.high or 0) + 1, *made.edges})


def _answered(tensors: Sequence[Tensor], axis: Axis, sizes: set[int]) -> list[int]:
    """Leave out the sizes that the module refuses, that are there already, or that cost too much."""
    return sorted(
        size
        for size in sizes
        if axis.low <= size
        and (axis.high is None or size <= axis.high)
        and size != axis.size
        and (size <= axis.example + 3 or not too_large(tensors, axis, size))
    )


def _valued(tensor: Tensor, kind: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if tensor.is_floating_point():
        return _float_valued(tensor, kind, generator)
    if kind == "zero":
        return torch.full_like(tensor, tensor.min().item())
    if kind == "constant":
        return torch.full_like(tensor, tensor.max().item())
    if kind == "negated":
        return ~tensor if tensor.dtype == torch.bool else tensor.flip(tuple(range(tensor.ndim)))
    drawn = torch.randint(tensor.numel(), (tensor.numel(),), generator=generator)
    return tensor.flatten()[drawn].reshape(tensor.shape)


def _float_valued(tensor: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    if kind == "negated":
        return -tensor
    if kind == "zero":
        return torch.zeros_like(tensor)
    if kind == "constant":
        return torch.full_like(tensor, 0.5)
    double = tensor.double()
    spread = double.std().item() if tensor.numel() > 1 else 1.0
    spread = spread if 0.0 < spread < float("inf") else 1.0
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * spread + double.mean().nan_to_num()
    return (drawn * (100.0 if kind == "large" else 1.0)).to(tensor.dtype)
