# SPDX-License-Identifier: Apache-2.0
"""The verb `export`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from leyden.export.errors import ExportValueError
from leyden.export.registry import choose, require
from leyden.export.report import Report
from leyden.export.sizes import Dynamic


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    inputs: Any = None,
    dynamic: Dynamic = "auto",
    verify: bool = True,
    metadata: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Write a module to a file and prove, before the file exists, that it answers what the module answers.

    The module is run in eval mode on copies of its weights and comes back bit for bit. The file is written beside its
    final name, compared with the module on other values and other sizes, sealed with a SHA-256 and renamed. If anything
    fails, nothing is left and a file that stood at ``path`` before is untouched.

    Args:
        module: Any `torch.nn.Module`. Of a LightningModule only what ``forward`` reaches is exported.
        path: The file. Its folder must exist.
        format: Name of a format; None chooses by the ending of ``path``.
        inputs: Example inputs: a tuple of positional arguments, a dict of arguments by name (if all its keys are
            parameters of forward), or the only argument. None takes ``module.example_input_array``. Tensors may stand
            in tuples, lists and dicts; None, numbers and strings become part of the contract.
        dynamic: Which sizes are free. ``"auto"`` asks the module: what it answers in other sizes, the file must answer;
            ``{"x": {0: "batch"}}`` frees and names these alone; None keeps every size of the example.
        verify: False skips the comparison; the report says so.
        metadata: Plain JSON data of your own, stored in the file.
        **options: Options of the format; ONNX takes ``external_data``.

    Returns:
        The report: what was run, the largest error, the free sizes, and what was noticed.

    Raises:
        ParityError: If the file differs from the module.
        UnsupportedModuleError: If forward can not become a graph: it branches on values or keeps state.
        ExportValueError: If an argument is wrong.
        MissingExtraError: If a package that the format needs is not installed.
        ExportError: If the file could not be written.

    Examples:
        >>> import tempfile, torch
        >>> from leyden.export import export, load
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export(module, f"{folder}/m.onnx", inputs=torch.randn(2, 4))
        ...     answer = load(f"{folder}/m.onnx")(torch.zeros(5, 4))
        >>> report.verified, str(report.bounds[0]), tuple(answer.shape)
        (True, 'batch >= 1', (5, 3))
    """
    if not isinstance(module, nn.Module):
        raise ExportValueError(f"module must be a torch.nn.Module, got a {type(module).__name__}")
    target = Path(path)
    name, found = choose(target, format)
    require(found.requires, name)
    return found.export(module, target, inputs, dynamic=dynamic, verify=verify, metadata=metadata, **options)
