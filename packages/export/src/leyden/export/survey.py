# SPDX-License-Identifier: Apache-2.0
"""Learn all that a module itself can tell before anything is written: free sizes, hazards, graph, contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leyden.export.capture import Made, capture, made_for
from leyden.export.cases import edge_sizes, value_cases
from leyden.export.contract import Call, Contract, TensorSpec
from leyden.export.errors import ExportValueError, UnsupportedModuleError
from leyden.export.hazards import scan
from leyden.export.parity import find_random
from leyden.export.quiet import quiet
from leyden.export.report import Bound, Hazard
from leyden.export.sizes import Axis, Dynamic, find_axes, limits, resized, where
from leyden.export.structure import Tree, unique_names
from leyden.export.subject import Subject, describe_refusal


@dataclass(frozen=True)
class Plan:
    """What is known of a module before anything is written."""

    subject: Subject
    call: Call
    axes: tuple[Axis, ...]
    tensors: list[Tensor]
    made: dict[str, Made]
    random: frozenset[int]
    hazards: tuple[Hazard, ...]
    program: torch.export.ExportedProgram
    contract: Contract


def survey(subject: Subject, call: Call, dynamic: Dynamic) -> Plan:
    """Ask the module, isolated, for its free sizes, hazards, graph and limits.

    Raises:
        UnsupportedModuleError: If forward can not become a graph.
        ExportValueError: If the example or ``dynamic`` does not fit.
    """
    with quiet():
        _check_example(subject, call)
        axes, tensors = find_axes(subject.try_answers, call.tensors, call.names, dynamic)
        hazards = scan(subject, _scanned(tensors, axes))
        _refuse_state(subject, hazards)
        random = find_random(subject, tensors)
        program = capture(subject, tensors, axes, hazards)
        made = made_for(program, axes)
        axes = [_limited(subject, tensors, axis, made[axis.name].high) for axis in axes]
        hazards = _merged(hazards, scan(subject, _beyond(tensors, axes, made)))
        contract = _contract(subject, call, axes, tensors)
    return Plan(subject, call, tuple(axes), tensors, made, random, hazards, program, contract)


def _merged(first: tuple[Hazard, ...], more: tuple[Hazard, ...]) -> tuple[Hazard, ...]:
    known = {(hazard.kind, hazard.where) for hazard in first}
    return (*first, *(hazard for hazard in more if (hazard.kind, hazard.where) not in known))


def _check_example(subject: Subject, call: Call) -> None:
    if subject.try_answer(call.tensors) is None:
        reason = describe_refusal(subject, call.tensors)
        shapes = ", ".join(f"{n}{list(t.shape)}" for n, t in zip(call.names, call.tensors, strict=True))
        raise ExportValueError(
            f"{type(subject.module).__name__}.forward fails on inputs ({shapes}) in eval mode: {reason}"
        )


def _scanned(tensors: Sequence[Tensor], axes: Sequence[Axis]) -> dict[str, Sequence[Tensor]]:
    """The inputs that the hazard scan compares: negated values, and each size changed once more."""
    inputs: dict[str, Sequence[Tensor]] = {"the example": tensors}
    inputs.update({f"{kind} values": values for kind, values in value_cases(tensors) if kind == "negated"})
    for axis in axes:
        inputs[f"{axis.name}={axis.size + 2}"] = resized(tensors, axis.places, axis.size + 2)
    return inputs


def _beyond(tensors: Sequence[Tensor], axes: Sequence[Axis], made: Mapping[str, Made]) -> dict[str, Sequence[Tensor]]:
    """The inputs that lie just beyond what the capture assumed: there a branch on a size shows its line."""
    inputs: dict[str, Sequence[Tensor]] = {"the example": tensors}
    for axis in axes:
        for size in edge_sizes(tensors, axis, made[axis.name]):
            inputs[f"{axis.name}={size}"] = resized(tensors, axis.places, size)
    return inputs if len(inputs) > 1 else {}


def _refuse_state(subject: Subject, hazards: tuple[Hazard, ...]) -> None:
    changed = tuple(hazard for hazard in hazards if hazard.kind == "state")
    if changed:
        raise UnsupportedModuleError(
            f"{type(subject.module).__name__} keeps state in eval mode, and a file has no memory: "
            + "; ".join(map(str, changed))
            + ". Make the state an input and an output of forward.",
            changed,
        )


def _limited(subject: Subject, tensors: Sequence[Tensor], axis: Axis, limit: int | None) -> Axis:
    low, high = limits(subject.try_answers, tensors, axis, limit)
    return replace(axis, low=low, high=high)


def _contract(subject: Subject, call: Call, axes: Sequence[Axis], tensors: Sequence[Tensor]) -> Contract:
    tree, answers, names = subject.results(tensors)
    if not answers:
        raise ExportValueError(f"{type(subject.module).__name__}.forward returns no tensor")
    for name, answer in zip(names, answers, strict=True):
        if answer.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
            raise ExportValueError(
                f"output {name!r} is {answer.dtype}, which no runtime gives back: return real numbers"
            )
    taken = [*call.names]
    outputs = unique_names([f"output_{name}" if name in taken else name for name in names], taken)
    shapes: list[list[int | str]] = [list(answer.shape) for answer in answers]
    # Some sizes follow from values: how many elements a mask lets through.
    for _, values in value_cases(tensors):
        if (other := subject.try_answer(values)) is not None:
            _mark(shapes, other, outputs, None)
    for axis in axes:
        _mark_sizes(subject, tree, tensors, axis, shapes, outputs)
    inputs: list[list[int | str]] = [list(t.shape) for t in tensors]
    for axis in axes:
        for index, dim in axis.places:
            inputs[index][dim] = axis.name
    return Contract(
        call.signature,
        call.tree,
        tree,
        _specs(call.names, tensors, inputs),
        _specs(outputs, answers, shapes),
        tuple(Bound(axis.name, axis.low, axis.high, where(axis, call.names)) for axis in axes),
    )


def _mark_sizes(
    subject: Subject,
    tree: Tree,
    tensors: Sequence[Tensor],
    axis: Axis,
    shapes: list[list[int | str]],
    outputs: Sequence[str],
) -> None:
    """Change one free size and name the output sizes that follow it."""
    for size in (axis.size + 2, axis.low, axis.size - 1):
        other = resized(tensors, axis.places, size)
        if size != axis.size and axis.low <= size and subject.try_answers(other):
            break
    else:
        return
    changed_tree, answers, _ = subject.results(other)
    if changed_tree != tree:
        raise UnsupportedModuleError(
            f"{type(subject.module).__name__}.forward returns another structure when {axis.name} is {size} instead of "
            f"{axis.size}: a file gives back tensors in one fixed structure"
        )
    _mark(shapes, answers, outputs, (axis, size))


def _mark(
    shapes: list[list[int | str]], answers: Sequence[Tensor], outputs: Sequence[str], changed: tuple[Axis, int] | None
) -> None:
    """Name the output sizes that another input changes: after the axis that they follow, else after the output."""
    for name, shape, answer in zip(outputs, shapes, answers, strict=True):
        if len(shape) != answer.ndim:
            raise UnsupportedModuleError(
                f"output {name!r} has {len(shape)} dimensions for one input and {answer.ndim} for another"
            )
        for dim, now in enumerate(answer.shape):
            before = shape[dim]
            if isinstance(before, str) or now == before:
                continue
            follows = changed is not None and (before, now) == (changed[0].size, changed[1])
            shape[dim] = changed[0].name if changed is not None and follows else f"{name}_dim{dim}"


def _specs(
    names: Sequence[str], tensors: Sequence[Tensor], shapes: Sequence[Sequence[int | str]]
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(shape))
        for name, tensor, shape in zip(names, tensors, shapes, strict=True)
    )
