# SPDX-License-Identifier: Apache-2.0
"""The verb `verify`: compare a file that exists with a module."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leyden.export.contract import Contract, bind
from leyden.export.errors import ExportValueError, ParityError
from leyden.export.exported import described
from leyden.export.hazards import scan
from leyden.export.isolation import isolated
from leyden.export.parity import Comparison, find_random
from leyden.export.pipeline import compare
from leyden.export.quiet import quiet
from leyden.export.registry import loadable
from leyden.export.report import Report
from leyden.export.sizes import Axis, resized
from leyden.export.structure import difference
from leyden.export.subject import Subject


def verify(path: str | os.PathLike[str], module: nn.Module, inputs: Any = None) -> Report:
    """Compare an exported file with a module on a batch of your own, other values and other sizes.

    Args:
        path: A file that `export` wrote.
        module: The module it should answer like; it comes back bit for bit.
        inputs: A batch, in the forms that `export` takes; None takes ``module.example_input_array``.

    Returns:
        The report of this comparison.

    Raises:
        ParityError: If the file differs from the module.
        DamagedFileError: If the file was changed since it was written.
        ExportValueError: If ``inputs`` do not fit the file.

    Examples:
        >>> import tempfile, torch
        >>> from leyden.export import export, verify
        >>> module = torch.nn.Linear(4, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export(module, f"{folder}/m.onnx", inputs=torch.randn(2, 4))
        ...     report = verify(f"{folder}/m.onnx", module, torch.randn(64, 4))
        >>> report.cases[0].shapes
        {'input': (64, 4)}
    """
    target = Path(path)
    name, found = loadable(target)
    run = found.open(target)
    stamp = found.describe(target)
    contract = stamp.contract
    call = bind(module, inputs)
    if text := difference(contract.arguments, call.tree):
        raise ExportValueError(f"inputs do not fit {target.name}: {text}")
    contract.check(call.tensors)
    with quiet(), isolated(module):
        subject = Subject(module, call)
        axes, tensors = _enlarged(contract, list(call.tensors))
        _check_structure(subject, contract, target.name)
        comparison = Comparison(
            subject,
            run,
            call.names,
            [spec.name for spec in contract.outputs],
            find_random(subject, tensors),
            scan(subject, {"the example": tensors}),
            target.name,
        )
        report = compare(comparison, ("example", list(call.tensors)), tensors, axes, {}, contract, target, name)
    stored = described(target, stamp).report
    return replace(report, sizes=stored.sizes, versions=stored.versions)


def _check_structure(subject: Subject, contract: Contract, file: str) -> None:
    tree, _, _ = subject.results(subject.call.tensors)
    if text := difference(contract.results, tree, "the output"):
        message = f"{file} gives back another structure than the module: {text}"
        raise ParityError(message, output=contract.outputs[0].name, case="example")


def _enlarged(contract: Contract, tensors: list[Tensor]) -> tuple[list[Axis], list[Tensor]]:
    """Rebuild the axes from the contract and give each an odd size of its own, as far as its bounds allow."""
    used = {size for tensor in tensors for size in tensor.shape}
    axes = []
    for bound in contract.bounds:
        places = tuple(
            (i, d) for i, spec in enumerate(contract.inputs) for d, size in enumerate(spec.shape) if size == bound.name
        )
        example = tensors[places[0][0]].shape[places[0][1]]
        lowest = max(3, bound.low | 1)
        size = next(s for s in range(lowest, lowest + 2 * len(used) + 2, 2) if s not in used)
        size = size if bound.high is None or size <= bound.high else example
        used.add(size)
        tensors = resized(tensors, places, size)
        axes.append(Axis(bound.name, places, example, size, bound.low, bound.high))
    return axes, tensors
