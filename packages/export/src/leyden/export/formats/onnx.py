# SPDX-License-Identifier: Apache-2.0
"""ONNX: written by torch's converter, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leyden.export.contract import Contract
from leyden.export.errors import DamagedFileError, ExportValueError, UnsupportedModuleError
from leyden.export.formats.onnx_file import read_record, seal, sealed_bytes, sha256
from leyden.export.parity import Runner
from leyden.export.pipeline import export_module
from leyden.export.registry import require
from leyden.export.report import Report
from leyden.export.sizes import Dynamic
from leyden.export.stamp import Stamp

_NAME = "onnx"
# A protobuf message ends at 2 GiB; the graph and the record need room beside the weights.
_SINGLE_FILE_LIMIT = 2**31 - 2**26
_FATAL_ONLY = 4


class OnnxFormat:
    """The format ``onnx`` of the group ``leyden.export.formats``.

    Attributes:
        suffixes: File name endings that select it.
        requires: Modules that exporting needs.
        runtime: Modules that loading needs.
    """

    suffixes: Sequence[str] = (".onnx",)
    requires: Sequence[str] = ("onnx", "onnxscript", "onnxruntime")
    runtime: Sequence[str] = ("onnxruntime",)

    def export(
        self,
        module: nn.Module,
        path: Path,
        inputs: Any = None,
        *,
        dynamic: Dynamic = "auto",
        verify: bool = True,
        metadata: Mapping[str, Any] | None = None,
        external_data: bool | None = None,
    ) -> Report:
        """Write ``module`` to ``path``; `leyden.export.export` describes the common arguments.

        Args:
            module: The module.
            path: The file.
            inputs: Example inputs.
            dynamic: Which sizes are free.
            verify: Whether to compare the file with the module.
            metadata: The user's metadata.
            external_data: Whether the weights stand in a file of their own beside the graph; None does so where one
            file
                can not hold them (2 GiB).

        Returns:
            The report.
        """
        if external_data is not None and not isinstance(external_data, bool):
            raise ExportValueError(f"external_data must be True, False or None, got {external_data!r}")
        require(self.requires, _NAME)
        writer = _OnnxWriter(external_data)
        return export_module(
            writer, _NAME, module, Path(path), inputs, dynamic=dynamic, verify=verify, metadata=metadata
        )

    def describe(self, path: Path) -> Stamp:
        """Read the record in a file without its weights."""
        return Stamp.from_json(read_record(path), path.name)

    def open(self, path: Path) -> Runner:
        """Check the digests of a file and its companions and start a session."""
        require(self.runtime, _NAME)
        content = sealed_bytes(path)
        companions = self.describe(path).companions
        for name, digest in companions.items():
            companion = path.parent / Path(name).name
            if not companion.is_file():
                raise DamagedFileError(f"{path.name} needs the file {name!r} beside it, which is not there")
            if sha256(companion) != digest:
                raise DamagedFileError(
                    f"{name} is damaged: its SHA-256 is not the one that {path.name} was sealed with"
                )
        return _session(path if companions else content)


@dataclass(frozen=True)
class _OnnxWriter:
    """What ONNX adds to the steps of an export."""

    external_data: bool | None
    packages: Sequence[str] = ("onnx", "onnxscript", "onnxruntime")

    def write(self, program: torch.export.ExportedProgram, contract: Contract, path: Path) -> dict[str, str]:
        """Convert, settle names and shapes, and write; return the digest of the weights' file if there is one."""
        import onnx

        from leyden.export.formats.onnx_graph import settle

        converted = _convert(program)
        external = self.external_data
        if external is None:
            external = _weight_bytes(program) > _SINGLE_FILE_LIMIT
        if not external:
            model = converted.model_proto
            settle(model, contract)
            path.write_bytes(model.SerializeToString(deterministic=True))
            return {}
        converted.save(path, external_data=True)
        weights = path.with_name(path.name + ".data")
        model = onnx.load(path, load_external_data=False)
        settle(model, contract)
        digest = sha256(weights)
        # The name follows from the content, so that an older graph keeps the weights it was written with.
        named = weights.with_name(f"{path.name}.{digest[:16]}.data")
        weights.rename(named)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = named.name
        path.write_bytes(model.SerializeToString(deterministic=True))
        return {named.name: digest}

    def run(self, path: Path) -> Runner:
        """Start a session on the file that was just written."""
        return _session(path)

    def companions(self, path: Path) -> tuple[str, ...]:
        """Return the names of the weights' files of a file of ours that stands at ``path``."""
        try:
            return tuple(Path(name).name for name in OnnxFormat().describe(path).companions)
        except (DamagedFileError, OSError):
            return ()

    def stamp(self, path: Path, record: Stamp) -> None:
        """Append the record and the seal."""
        seal(path, record.to_json(), record.metadata)


def _convert(program: torch.export.ExportedProgram) -> Any:
    try:
        converted = torch.onnx.export(program, (), dynamo=True, verbose=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UnsupportedModuleError(f"torch's ONNX converter can not convert the graph: {reason}") from error
    if converted is None:
        raise UnsupportedModuleError("torch's ONNX converter gave no graph")
    return converted


def _weight_bytes(program: torch.export.ExportedProgram) -> int:
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor))


def _session(source: Path | bytes) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its messages go to the process's stderr, past Python; what matters comes as an exception.
    options.log_severity_level = _FATAL_ONLY
    given = source if isinstance(source, bytes) else str(source)
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: t.detach().cpu().contiguous().numpy() for name, t in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run
