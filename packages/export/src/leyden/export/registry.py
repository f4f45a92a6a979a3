# SPDX-License-Identifier: Apache-2.0
"""The formats that are installed, found by the entry point group ``leyden.export.formats``."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import nn

from leyden.export.errors import ExportError, ExportValueError, MissingExtraError
from leyden.export.parity import Runner
from leyden.export.report import Report
from leyden.export.stamp import Stamp

_GROUP = "leyden.export.formats"
_OWN_DISTRIBUTION = "leyden-export"


class Format(Protocol):
    """What an entry point of the group gives: an object, or a class that is called without arguments.

    A format that can be loaded again has ``describe`` and ``open`` as well.

    Attributes:
        suffixes: File name endings that select the format.
        requires: Modules that must be importable to export.
    """

    suffixes: Sequence[str]
    requires: Sequence[str]

    def export(self, module: nn.Module, path: Path, inputs: Any, **options: Any) -> Report:
        """Write the module to ``path`` and report."""


class LoadableFormat(Format, Protocol):
    """A format whose files answer again.

    Attributes:
        runtime: Modules that must be importable to run a file.
    """

    runtime: Sequence[str]

    def describe(self, path: Path) -> Stamp:
        """Read the record in a file without its weights."""

    def open(self, path: Path) -> Runner:
        """Check the file's digest and make it answer."""


@functools.cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    chosen: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=_GROUP):
        known = chosen.get(entry.name)
        if known is None or _distribution(entry) == _OWN_DISTRIBUTION:
            chosen[entry.name] = entry
        elif _OWN_DISTRIBUTION != _distribution(known) != _distribution(entry):
            raise ExportError(
                f"the format {entry.name!r} comes from two distributions, {_distribution(known)} and "
                f"{_distribution(entry)}: uninstall one"
            )
    return chosen


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


@functools.cache
def _format(name: str) -> Format:
    entry = _entry_points().get(name)
    if entry is None:
        raise ExportValueError(
            f"unknown format {name!r}; installed are {', '.join(map(repr, sorted(_entry_points())))}"
        )
    found = entry.load()
    return cast(Format, found() if isinstance(found, type) else found)


def list_formats() -> dict[str, tuple[str, ...]]:
    """Return the installed formats and the file name endings that select them.

    Returns:
        Endings by the format's name. A format is listed whether or not the packages it needs are installed.

    Examples:
        >>> from leyden.export import list_formats
        >>> list_formats()["onnx"]
        ('.onnx',)
    """
    return {name: tuple(_format(name).suffixes) for name in sorted(_entry_points())}


def choose(path: Path, format: str | None = None) -> tuple[str, Format]:
    """Return the name and the object of the format asked for, or of the one that the file name asks for."""
    if format is not None:
        found = _format(format)
        if not path.name.lower().endswith(tuple(found.suffixes)):
            raise ExportValueError(
                f"a file of the format {format!r} must end in {' or '.join(found.suffixes)}, so that it can be loaded "
                f"again; got {path.name!r}"
            )
        return format, found
    for name, suffixes in list_formats().items():
        if path.name.lower().endswith(suffixes):
            return name, _format(name)
    known = "; ".join(f"{name} ({', '.join(suffixes)})" for name, suffixes in list_formats().items())
    raise ExportValueError(f"the ending of {path.name!r} belongs to no format; installed are: {known}")


def loadable(path: Path) -> tuple[str, LoadableFormat]:
    """Return the format of an existing file, if it can be loaded again."""
    name, found = choose(path)
    if not path.is_file():
        raise ExportValueError(f"there is no file {str(path)!r}")
    if not (hasattr(found, "open") and hasattr(found, "describe")):
        raise ExportError(f"files of the format {name!r} can be written, but not loaded back here")
    return name, cast(LoadableFormat, found)


def require(modules: Sequence[str], name: str) -> None:
    """Raise unless all modules can be imported."""
    missing = [module for module in modules if not _importable(module)]
    if not missing:
        return
    entry = _entry_points().get(name)
    owner = _distribution(entry) if entry is not None else _OWN_DISTRIBUTION
    raise MissingExtraError(
        f"the format {name!r} needs {', '.join(missing)}: pip install '{owner}[{name}]'", name=missing[0]
    )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
