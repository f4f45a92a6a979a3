# SPDX-License-Identifier: Apache-2.0
"""The steps of one export, the same for every format of this package.

Bind, enlarge, scan, isolate, capture, audit the ranges, write beside the target, load back, verify, stamp, rename.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from leyden.export.capture import Made
from leyden.export.cases import VALUES, size_cases, value_cases
from leyden.export.contract import Contract, bind
from leyden.export.errors import ExportError, ExportValueError
from leyden.export.isolation import isolated
from leyden.export.parity import Comparison, Runner, check_draws
from leyden.export.quiet import quiet
from leyden.export.report import Report, to_plain
from leyden.export.sizes import Axis, Dynamic
from leyden.export.staging import publish, staged
from leyden.export.stamp import Stamp, checked_metadata, versions
from leyden.export.subject import Subject
from leyden.export.survey import Plan, survey


class Writer(Protocol):
    """What a format adds to the steps: writing a captured program, making the file answer, and stamping it.

    Attributes:
        packages: Distributions whose versions belong into the report.
    """

    @property
    def packages(self) -> Sequence[str]:
        """Distributions whose versions belong into the report."""

    def write(self, program: torch.export.ExportedProgram, contract: Contract, path: Path) -> dict[str, str]:
        """Write the program; return the SHA-256 of each companion file by its name."""

    def run(self, path: Path) -> Runner:
        """Make a file answer that was just written and is not stamped yet."""

    def companions(self, path: Path) -> tuple[str, ...]:
        """Return the companions of a file that stands already, as far as it can be read."""

    def stamp(self, path: Path, record: Stamp) -> None:
        """Add the record and seal the file."""


def export_module(
    writer: Writer,
    format: str,
    module: nn.Module,
    path: Path,
    inputs: Any,
    *,
    dynamic: Dynamic = "auto",
    verify: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Report:
    """Run all steps for one format; `leyden.export.export` describes the arguments."""
    metadata = checked_metadata(metadata)
    call = bind(module, inputs)
    _check_weights(module)
    with staged(path) as folder, isolated(module):
        plan = survey(Subject(module, call), call, dynamic)
        written = folder / path.name
        with quiet():
            companions = writer.write(plan.program, plan.contract, written)
        if verify:
            report = _verified(writer.run(written), plan, path, format)
        else:
            report = Report(path, format, verified=False, bounds=plan.contract.bounds, hazards=plan.hazards)
        report = replace(report, versions=versions(writer.packages))
        writer.stamp(written, Stamp(format, plan.contract, to_plain(report), metadata, companions))
        sizes = {name: (folder / name).stat().st_size for name in (path.name, *companions)}
        superseded = set(writer.companions(path)) - set(companions)
        publish(folder, path, tuple(companions))
        for name in superseded:
            (path.parent / name).unlink(missing_ok=True)
    return replace(report, sizes=sizes)


def _check_weights(module: nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise ExportValueError(f"{name!r} is not initialised yet: call the module once before exporting it")
        if tensor.is_meta:
            raise ExportValueError(
                f"{name!r} is on the meta device and has no values: load the weights before exporting"
            )


def _verified(run: Runner, plan: Plan, path: Path, format: str) -> Report:
    example = ("example", list(plan.call.tensors))
    comparison = Comparison(
        plan.subject,
        run,
        plan.call.names,
        [spec.name for spec in plan.contract.outputs],
        plan.random,
        plan.hazards,
        path.name,
        partial(_advice, plan),
    )
    with quiet():
        return compare(comparison, example, plan.tensors, plan.axes, plan.made, plan.contract, path, format)


def _advice(plan: Plan, case: str) -> str:
    """Say which sizes the graph was made for, and how to ask for fewer free ones."""
    limited = {
        axis.name: (made.low, made.high)
        for axis in plan.axes
        if (made := plan.made[axis.name]).low > axis.low or (made.high is not None and made.high != axis.high)
    }
    lines = [f"The graph was made for {name} {low}..{high or ''}." for name, (low, high) in limited.items()]
    if plan.axes:
        guilty = {*limited, *(axis.name for axis in plan.axes if case.startswith(f"{axis.name}="))}
        kept = [axis for axis in plan.axes if axis.name not in guilty] if guilty else plan.axes[:1]
        dynamic: dict[str, dict[int, str]] = {}
        for axis in kept if len(kept) < len(plan.axes) else []:
            for index, dim in axis.places:
                dynamic.setdefault(plan.call.names[index], {})[dim] = axis.name
        lines.append(f"If fewer sizes need to be free, name them: dynamic={dynamic or None}.")
    return " ".join(lines)


def compare(
    comparison: Comparison,
    example: tuple[str, list[Tensor]],
    tensors: Sequence[Tensor],
    axes: Sequence[Axis],
    made: Mapping[str, Made],
    contract: Contract,
    path: Path,
    format: str,
) -> Report:
    """Run the file and the module on the example, other values and other sizes."""
    comparison.compare([example])
    comparison.compare(value_cases(tensors))
    comparison.compare(size_cases(tensors, axes, made))
    if not any(case.error is not None for case in comparison.cases):
        raise ExportError(f"{path.name} was compared in no case: the module refuses all of them")
    check_draws(comparison.run, tensors, comparison.random, comparison.outputs, path.name)
    return Report(
        path,
        format,
        verified=True,
        max_error=max(case.error for case in comparison.cases if case.error is not None),
        quantiles=comparison.quantiles(),
        tolerance=comparison.tolerance,
        cases=tuple(comparison.cases),
        bounds=contract.bounds,
        hazards=comparison.hazards,
        constant_outputs=comparison.constant_outputs(VALUES),
        random_outputs=tuple(name for i, name in enumerate(comparison.outputs) if i in comparison.random),
    )
