# SPDX-License-Identifier: Apache-2.0
"""Compare what a file answers with what the module answers, number by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from leyden.export.errors import ParityError, UnsupportedModuleError
from leyden.export.isolation import isolated
from leyden.export.report import Case, Hazard
from leyden.export.subject import Subject, default_place

Runner: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]

_FLOORS = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 5e-3}
_OWN_ERRORS = 10.0
_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_KEPT = 100_000


@dataclass
class Comparison:
    """Runs cases and keeps what a report needs.

    Args:
        subject: The module, isolated.
        run: The file.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        random: Indices of the outputs that draw random numbers.
        hazards: What an error shows as a possible reason.
        file: Name of the file, for errors.
        advice: What an error adds at its end, given the name of the case.
    """

    subject: Subject
    run: Runner
    inputs: Sequence[str]
    outputs: Sequence[str]
    random: frozenset[int]
    hazards: tuple[Hazard, ...]
    file: str
    advice: Callable[[str], str] = lambda case: ""
    cases: list[Case] = field(default_factory=list)
    tolerance: float = 0.0
    errors: list[Tensor] = field(default_factory=list)
    answers: dict[str, list[Tensor]] = field(default_factory=dict)

    def compare(self, cases: Iterable[tuple[str, list[Tensor]]]) -> None:
        """Run cases in order; the first difference raises a `ParityError`."""
        for name, tensors in cases:
            shapes = {n: tuple(t.shape) for n, t in zip(self.inputs, tensors, strict=True)}
            expected = self.subject.try_answer(tensors)
            error = None if expected is None else self._compare(name, tensors, expected)
            if expected is not None:
                self.answers[name] = expected
            self.cases.append(Case(name, shapes, error))

    def quantiles(self) -> dict[str, float]:
        """Return quantiles of the errors of all compared elements."""
        if not self.errors:
            return {}
        errors = torch.cat(self.errors)
        return {f"{q:g}": float(torch.quantile(errors, q)) for q in _QUANTILES}

    def constant_outputs(self, value_cases: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs that were the same in all of the named cases."""
        seen = [self.answers[name] for name in value_cases if name in self.answers]
        if len(seen) < 2:
            return ()
        return tuple(
            name
            for i, name in enumerate(self.outputs)
            if i not in self.random and all(_same(answer[i], seen[0][i]) for answer in seen[1:])
        )

    def _compare(self, case: str, tensors: list[Tensor], expected: list[Tensor]) -> float:
        try:
            actual = self.run(tensors)
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
            text = f"the file refuses what the module answers (inputs of shape {shapes}): {_first_line(error)}"
            raise self._failure(text, self.outputs[0], case, expected[0]) from error
        if len(actual) != len(expected):
            text = f"the file gives {len(actual)} tensors, the module {len(expected)}"
            raise self._failure(text, self.outputs[0], case)
        own: list[Tensor] | None = None
        worst = 0.0
        for i, (name, a, b) in enumerate(zip(self.outputs, actual, expected, strict=True)):
            self._check_kind(case, name, a, b)
            if i in self.random:
                continue
            errors = _scaled(a, b)
            largest = float(errors.max()) if errors.numel() else 0.0
            allowed = _FLOORS.get(b.dtype, 0.0)
            if largest > allowed:
                own = own or self._in_double(tensors)
                allowed = max(allowed, _own_allowance(own, expected, i))
            self.tolerance = max(self.tolerance, allowed)
            if not largest <= allowed:
                raise self._difference(case, name, a, b, errors, allowed)
            self.errors.append(errors.flatten()[:: max(1, errors.numel() // _KEPT)].float())
            worst = max(worst, largest)
        return worst

    def _check_kind(self, case: str, name: str, actual: Tensor, expected: Tensor) -> None:
        if actual.dtype != expected.dtype:
            raise self._failure(f"its dtype is {actual.dtype}, the module's {expected.dtype}", name, case, expected)
        if actual.shape != expected.shape:
            text = f"its shape is {tuple(actual.shape)}, the module's {tuple(expected.shape)}"
            raise self._failure(text, name, case, expected)

    def _in_double(self, tensors: list[Tensor]) -> list[Tensor]:
        """Answer in float64: how far float32 is from it tells how much a right file may differ."""
        with isolated(self.subject.module, torch.float64):
            return self.subject.try_answer(self.subject.as_double(tensors)) or []

    def _difference(
        self, case: str, name: str, actual: Tensor, expected: Tensor, errors: Tensor, allowed: float
    ) -> ParityError:
        flat = int((~(errors.flatten() <= allowed)).nonzero()[0])
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), expected.shape))
        text = (
            f"first differing value at {list(index)}: the file gives {actual[index].item()!r}, the module "
            f"{expected[index].item()!r}; largest error {float(errors.max()):.2e}, allowed {allowed:.1e}"
        )
        return self._failure(text, name, case, expected, index)

    def _failure(
        self, text: str, name: str, case: str, expected: Tensor | None = None, index: tuple[int, ...] | None = None
    ) -> ParityError:
        shape = None if expected is None else tuple(expected.shape)
        message = f"{self.file} does not answer what the module answers. Output {name!r}"
        message += f" of shape {shape}" if shape is not None else ""
        message += f", case {case!r}: {text}."
        for hazard in self.hazards:
            message += f"\n  possible reason: {hazard}"
        message += f"\n{advice}" if (advice := self.advice(case)) else ""
        return ParityError(message, output=name, case=case, shape=shape, index=index, hazards=self.hazards)


def find_random(subject: Subject, tensors: Sequence[Tensor]) -> frozenset[int]:
    """Return the indices of outputs that draw random numbers.

    Raises:
        UnsupportedModuleError: If two runs with the same seed differ: forward depends on earlier calls.
    """
    first, again, other = (subject.answer(tensors, seed) for seed in (0, 0, 1))
    if not all(_same(a, b) for a, b in zip(first, again, strict=True)):
        raise UnsupportedModuleError(
            "forward gives another answer when it is called again with the same input and the same seed: it depends "
            f"on earlier calls ({default_place(subject.module)}). A file has no memory: make the state an input and an "
            "output"
        )
    return frozenset(i for i, (a, b) in enumerate(zip(first, other, strict=True)) if not _same(a, b))


def check_draws(
    run: Runner, tensors: Sequence[Tensor], random: frozenset[int], outputs: Sequence[str], file: str
) -> None:
    """Raise unless the file draws its random outputs anew in each call."""
    first, again = run(tensors), run(tensors)
    for i in sorted(random):
        if _same(first[i], again[i]):
            text = (
                "the module draws it anew in each call, the file gives the same numbers: use torch's random functions"
            )
            raise ParityError(f"{file}: output {outputs[i]!r}: {text}", output=outputs[i], case="drawn twice")


def _scaled(actual: Tensor, expected: Tensor) -> Tensor:
    """Return ``|a - b| / (1 + max|b|)`` per element; infinity where only one is finite or infinities differ."""
    if not expected.is_floating_point():
        # One number for all: the share of elements that differ, seen at those that do.
        wrong = actual != expected
        return wrong.double() * wrong.double().mean()
    a, b = actual.double(), expected.double()
    finite = a.isfinite() & b.isfinite()
    scale = 1.0 + (b[finite].abs().max() if finite.any() else torch.zeros((), dtype=torch.float64))
    same = (a == b) | (a.isnan() & b.isnan())
    errors = torch.where(finite, (a - b).abs() / scale, torch.inf)
    return torch.where(same, torch.zeros_like(errors), errors)


def _own_allowance(double: list[Tensor], expected: list[Tensor], index: int) -> float:
    if index >= len(double) or double[index].shape != expected[index].shape:
        return 0.0
    errors = _scaled(expected[index], double[index])
    own = float(errors.max()) if errors.numel() else 0.0
    return _OWN_ERRORS * own if own < float("inf") else 0.0


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
