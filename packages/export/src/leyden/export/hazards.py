# SPDX-License-Identifier: Apache-2.0
"""Find the places in forward where a graph and the Python it was made from can part.

Two things are looked at: where a tensor becomes a Python value, and whether another input makes forward issue other
torch calls. Neither is an error by itself: the numbers of the exported file decide, and these places explain them. What
a file without state can never follow, a buffer that forward changes, is told apart as its own kind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from leyden.export.isolation import seed_all
from leyden.export.report import Hazard
from leyden.export.subject import Subject, default_place

_LEAVES_TORCH = frozenset(
    {
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__complex__",
        "item",
        "tolist",
        "numpy",
        "__array__",
        "equal",
        "__contains__",
    }
)
_TORCH = str(Path(torch.__file__).parent) + os.sep
_OWN = str(Path(__file__).parent) + os.sep


class _TorchCall(NamedTuple):
    name: str
    numbers: tuple[float | bool, ...]
    weights: tuple[str, ...]
    where: str


class _Recorder(TorchFunctionMode):
    """Writes down the torch calls that Python code makes, each with its line.

    Integers are left out: sizes are integers and change rightly. Which weights take part is kept, since two branches
    may differ in nothing else.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        self.weights = {id(t): name for name, t in tensors}
        self.calls: list[_TorchCall] = []
        self.changed: dict[str, str] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        values = [*args, *(kwargs or {}).values()]
        known = [(t, self.weights[id(t)]) for t in values if id(t) in self.weights]
        versions = [t._version for t, _ in known]
        numbers = tuple(v for v in values if isinstance(v, float | bool))
        where = _line()
        self.calls.append(_TorchCall(_short(func), numbers, tuple(name for _, name in known), where))
        answer = func(*args, **(kwargs or {}))
        for (tensor, name), version in zip(known, versions, strict=True):
            if tensor._version != version:
                self.changed.setdefault(name, where)
        return answer


def scan(subject: Subject, inputs: Mapping[str, Sequence[Tensor]]) -> tuple[Hazard, ...]:
    """Run forward on several inputs and list what looks dangerous.

    Args:
        subject: The module, isolated: this scan may change its buffers.
        inputs: Tensors by a name that says how they differ from the first.

    Returns:
        The hazards, each place once.
    """
    found: dict[tuple[str, str], Hazard] = {}
    first: list[_TorchCall] | None = None
    for label, tensors in inputs.items():
        before = _state(subject.module)
        recorder = _Recorder(subject.module)
        seed_all(0)
        copies = [tensor.clone() for tensor in tensors]
        try:
            with recorder:
                subject.results(copies)
        except Exception:  # noqa: BLE001  the module refuses this input: there is nothing to compare
            continue
        hazards = [*_conversions(recorder.calls), *_changes(subject.module, before, recorder)]
        if first is None:
            first = recorder.calls
        else:
            hazards += _differences(first, recorder.calls, label)
        for hazard in hazards:
            found.setdefault((hazard.kind, hazard.where), hazard)
    return tuple(found.values())


def _conversions(calls: Sequence[_TorchCall]) -> list[Hazard]:
    return [
        Hazard("value", f"{call.name} turns a tensor into a Python value", call.where)
        for call in calls
        if call.name.rpartition(".")[2] in _LEAVES_TORCH
    ]


def _differences(first: Sequence[_TorchCall], other: Sequence[_TorchCall], label: str) -> list[Hazard]:
    """Report the first call in which two runs part; everything after it follows from it."""
    for a, b in zip_longest(first, other):
        if a is None or b is None or a != b:
            shown, missing = (a, b) if b is None else (b, a)
            if a is not None and b is not None and a.name == b.name:
                text = f"{b.name} {'is called elsewhere' if a.where != b.where else 'gets other numbers or weights'}"
            else:
                text = f"{shown.name} is {'no longer' if missing is None and shown is a else 'now'} called here"
            return [Hazard("calls", f"with {label}, {text}", shown.where)]
    return []


def _changes(module: nn.Module, before: Mapping[str, tuple[Tensor, Tensor]], recorder: _Recorder) -> list[Hazard]:
    hazards = []
    for name, tensor in _named_tensors(module):
        known = before.get(name)
        if known is None or tensor is not known[0] or not _same_bits(tensor, known[1]):
            where = recorder.changed.get(name, default_place(module))
            hazards.append(Hazard("state", f"forward changes {name!r}", where))
    return hazards


def _state(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (tensor, tensor.detach().clone()) for name, tensor in _named_tensors(module)}


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))


def _short(func: Callable[..., Any]) -> str:
    name: str = resolve_name(func) or getattr(func, "__name__", repr(func))
    return name.removeprefix("torch.")


def _line() -> str:
    """Return the innermost line of forward that is not torch's own; a module of torch itself has none."""
    inner = frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith(_TORCH) and frame.f_back is not None:
        frame = frame.f_back
    chosen = inner if frame.f_code.co_filename.startswith(_OWN) else frame
    return f"{chosen.f_code.co_filename}:{chosen.f_lineno}"
