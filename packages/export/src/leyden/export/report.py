# SPDX-License-Identifier: Apache-2.0
"""What an export answers with: a plain record of what was run and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bound:
    """One free size of the exported graph.

    Attributes:
        name: Name of the size, such as ``"batch"``.
        low: Smallest size that the module answers.
        high: Largest size, or None if none was found.
        where: The dimensions that share this size, such as ``("x[0]", "mask[0]")``.
    """

    name: str
    low: int
    high: int | None
    where: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} >= {self.low}" if self.high is None else f"{self.name} {self.low}..{self.high}"


@dataclass(frozen=True)
class Hazard:
    """A place in forward where a graph may part from the Python that it was made from.

    Attributes:
        kind: ``"value"`` (a tensor became a Python value), ``"calls"`` (another input made other torch calls) or
            ``"state"`` (a buffer or parameter was changed).
        message: What was seen.
        where: File and line.
    """

    kind: str
    message: str
    where: str

    def __str__(self) -> str:
        return f"{self.message} ({self.where})"


@dataclass(frozen=True)
class Case:
    """One input on which the file and the module were compared.

    Attributes:
        name: Such as ``"batch=1"`` or ``"negated"``.
        shapes: Shape of each input by its name.
        error: Largest scaled error over the outputs; None if the module itself refuses the input.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    error: float | None


@dataclass(frozen=True)
class Report:
    """The outcome of an export or of a later verification.

    An error is ``|file - module| / (1 + max|module|)``, taken over one output; for integers and booleans it is the
    share of elements that differ.

    Attributes:
        path: The file.
        format: Name of the format.
        verified: Whether the file was compared with the module.
        max_error: Largest error over all cases and outputs.
        quantiles: Quantiles of the errors of all compared elements, by their probability.
        tolerance: The error that was allowed: the floor of the dtype, or ten times the module's own distance between
            float32 and float64 where that is larger.
        cases: What was run.
        bounds: The free sizes.
        hazards: Places in forward that were looked at with suspicion, and passed.
        constant_outputs: Outputs that were the same for all inputs: their agreement proves nothing.
        random_outputs: Outputs that draw random numbers: only their shape and dtype were compared.
        sizes: Bytes of each file by its name.
        versions: Versions of the packages that took part.

    Examples:
        >>> from pathlib import Path
        >>> print(Report(Path("m.onnx"), "onnx", verified=False))
        m.onnx (onnx): not verified
    """

    path: Path
    format: str
    verified: bool
    max_error: float = 0.0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 0.0
    cases: tuple[Case, ...] = ()
    bounds: tuple[Bound, ...] = ()
    hazards: tuple[Hazard, ...] = ()
    constant_outputs: tuple[str, ...] = ()
    random_outputs: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        size = f", {sum(self.sizes.values()):,} bytes" if self.sizes else ""
        head = f"{self.path.name} ({self.format}{size}): "
        if not self.verified:
            head += "not verified"
        else:
            ran = sum(case.error is not None for case in self.cases)
            head += f"agrees with the module in {ran} cases, largest error {self.max_error:.1e}"
            head += f" (allowed {self.tolerance:.1e})"
        lines = [head]
        lines += [f"  free sizes: {', '.join(map(str, self.bounds))}"] if self.bounds else []
        lines += [f"  hazard: {hazard}" for hazard in self.hazards]
        lines += [f"  same for all inputs, so proves nothing: {', '.join(self.constant_outputs)}"] * bool(
            self.constant_outputs
        )
        lines += [f"  random, so only shapes compared: {', '.join(self.random_outputs)}"] * bool(self.random_outputs)
        return "\n".join(lines)


def to_plain(report: Report) -> dict[str, Any]:
    """Return a report as JSON data, without what depends on the machine: its path, the sizes and folders of sources."""
    plain = asdict(report)
    del plain["path"], plain["sizes"]
    for hazard in plain["hazards"]:
        hazard["where"] = Path(hazard["where"]).name
    return plain


def from_plain(plain: Mapping[str, Any], path: Path, sizes: Mapping[str, int]) -> Report:
    """Rebuild the report of the file at ``path``."""
    return Report(
        path=path,
        sizes=sizes,
        cases=tuple(
            Case(c["name"], {name: tuple(shape) for name, shape in c["shapes"].items()}, c["error"])
            for c in plain["cases"]
        ),
        bounds=bounds_from_plain(plain["bounds"]),
        hazards=tuple(Hazard(**hazard) for hazard in plain["hazards"]),
        constant_outputs=tuple(plain["constant_outputs"]),
        random_outputs=tuple(plain["random_outputs"]),
        **{k: plain[k] for k in ("format", "verified", "max_error", "quantiles", "tolerance", "versions")},
    )


def bounds_from_plain(plain: list[dict[str, Any]]) -> tuple[Bound, ...]:
    """Rebuild bounds from JSON data."""
    return tuple(Bound(b["name"], b["low"], b["high"], tuple(b["where"])) for b in plain)
