# SPDX-License-Identifier: Apache-2.0
"""Read an exported file: what is in it (`inspect`), and as a callable (`load`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from inspect import Signature
from pathlib import Path
from typing import Any

from leyden.export.contract import TensorSpec
from leyden.export.parity import Runner
from leyden.export.registry import loadable
from leyden.export.report import Bound, Report, from_plain
from leyden.export.stamp import Stamp
from leyden.export.structure import rebuild


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself.

    Attributes:
        path: The file.
        format: Name of its format.
        signature: Signature of the forward it came from.
        inputs: The tensors that go in.
        outputs: The tensors that come out.
        bounds: The free sizes.
        metadata: The metadata given to `export`.
        report: The report of the export.
    """

    path: Path
    format: str
    signature: Signature
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: tuple[Bound, ...]
    metadata: dict[str, Any]
    report: Report

    def __str__(self) -> str:
        lines = [f"{self.path.name} ({self.format}), forward{self.signature}"]
        lines += [f"  in   {spec}" for spec in self.inputs]
        lines += [f"  out  {spec}" for spec in self.outputs]
        lines += [f"  {key} = {value!r}" for key, value in self.metadata.items()]
        return "\n".join([*lines, str(self.report)])


class Exported:
    """A file as a function: the arguments of forward, and its structure of results.

    Made by `load`. Tensors or NumPy arrays go in, tensors on the CPU come out. A call outside of the contract (another
    dtype, a size that the module does not answer, another value of a constant) raises an `ExportValueError`.

    Attributes:
        path: The file.
        signature: Signature of forward.
        metadata: The metadata given to `export`.
        bounds: The free sizes.
        report: The report of the export.
    """

    def __init__(self, path: Path, stamp: Stamp, run: Runner) -> None:
        info = described(path, stamp)
        self.path = path
        self.metadata = info.metadata
        self.bounds = info.bounds
        self.report = info.report
        self.signature = self.__signature__ = info.signature
        self._contract = stamp.contract
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer one call as the module would."""
        return rebuild(self._contract.results, self._run(self._contract.bind(args, kwargs)))

    def __repr__(self) -> str:
        return f"Exported({self.path.name!r}, forward{self.signature})"


def described(path: Path, stamp: Stamp) -> FileInfo:
    """Put the record of a file into the hands of a user."""
    names = (path.name, *stamp.companions)
    sizes = {name: (path.parent / name).stat().st_size for name in names if (path.parent / name).is_file()}
    contract = stamp.contract
    return FileInfo(
        path=path,
        format=stamp.format,
        signature=contract.signature,
        inputs=contract.inputs,
        outputs=contract.outputs,
        bounds=contract.bounds,
        metadata=stamp.metadata,
        report=from_plain(stamp.report, path, sizes),
    )


def load(path: str | os.PathLike[str]) -> Exported:
    """Load an exported file as a callable with the signature and the results of the module's forward.

    The SHA-256 of everything in the file is checked first. Nothing in the file is executed but its graph.

    Args:
        path: A file that `export` wrote.

    Returns:
        The callable.

    Raises:
        DamagedFileError: If the file or its weights were changed, cut, or written by another program.
        MissingExtraError: If the runtime is not installed.
        ExportValueError: If there is no such file, or no format for its ending.

    Examples:
        >>> import tempfile, torch
        >>> from leyden.export import export, load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export(torch.nn.ReLU(), f"{folder}/relu.onnx", inputs=torch.randn(2, 3), metadata={"labels": ["a"]})
        ...     relu = load(f"{folder}/relu.onnx")
        >>> relu.metadata, relu(torch.tensor([[-1.0, 2.0]]))
        ({'labels': ['a']}, tensor([[0., 2.]]))
    """
    target = Path(path)
    _, found = loadable(target)
    run = found.open(target)
    return Exported(target, found.describe(target), run)


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """Read what a file says about itself, without a runtime and without reading its weights.

    The digest is not checked here; `load` does.

    Args:
        path: A file that `export` wrote.

    Returns:
        Signature, tensors, free sizes, metadata and report.

    Raises:
        DamagedFileError: If the file holds no readable record.

    Examples:
        >>> import tempfile, torch
        >>> from leyden.export import export, inspect
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export(torch.nn.Linear(4, 2), f"{folder}/m.onnx", inputs=torch.randn(2, 4))
        ...     info = inspect(f"{folder}/m.onnx")
        >>> print(info.inputs[0], info.outputs[0])
        input: float32[batch, 4] output: float32[batch, 2]
    """
    target = Path(path)
    _, found = loadable(target)
    return described(target, found.describe(target))
