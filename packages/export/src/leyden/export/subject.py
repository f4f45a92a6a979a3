# SPDX-License-Identifier: Apache-2.0
"""The module under export as a function from flat tensors to flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from leyden.export.contract import Call, arguments
from leyden.export.isolation import seed_all
from leyden.export.structure import Tree, flatten


class Subject(nn.Module):
    """A module whose forward takes and gives tensors only, so that names and structure never depend on a tracer.

    Args:
        module: The module.
        call: The example call; other tensors take the places of its tensors.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call the module and return the tensors of what it returns."""
        return tuple(self.results(tensors)[1])

    def results(self, tensors: Sequence[Tensor]) -> tuple[Tree, list[Tensor], list[str]]:
        """Call the module and take its answer apart."""
        bound = arguments(self.call, tensors)
        answer = self.module(*bound.args, **bound.kwargs)
        return flatten(answer, "the output", prefix="output", share=True)

    def answer(self, tensors: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
        """Call the module on copies, with all random numbers from ``seed``, and return copies."""
        seed_all(seed)
        return [t.detach().clone() for t in self.results([t.clone() for t in tensors])[1]]

    def try_answer(self, tensors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the answer, or None if the module refuses these tensors."""
        try:
            return self.answer(tensors)
        except Exception:  # noqa: BLE001  whatever forward raises is its way to refuse a shape or a value
            return None

    def try_answers(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the module answers these tensors."""
        return self.try_answer(tensors) is not None

    def as_double(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors with floating-point ones in float64."""
        return [t.double() if t.is_floating_point() else t for t in tensors]


def describe_refusal(subject: Subject, tensors: Sequence[Tensor]) -> str:
    """Return the first line of what forward raises for these tensors."""
    try:
        subject.answer(tensors)
    except Exception as error:  # noqa: BLE001  the text of whatever forward raises is wanted
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return "nothing"


def default_place(module: nn.Module) -> str:
    """Return file and line of the module's forward."""
    function: Any = getattr(module.forward, "__func__", module.forward)
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else type(module).__name__
