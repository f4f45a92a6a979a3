# SPDX-License-Identifier: Apache-2.0
"""Every exception that export raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.export.report import Hazard


class ExportError(Exception):
    """Root of the exceptions of this package."""


class ExportValueError(ExportError, ValueError):
    """An argument has a value that is not allowed."""


class MissingExtraError(ExportError, ModuleNotFoundError):
    """An optional package is not installed; the message names the extra that brings it."""


class DamagedFileError(ExportError):
    """A file is truncated or changed since it was written, or was not written by this package."""


class UnsupportedModuleError(ExportError):
    """The module's forward can not become a graph that is right for every input.

    Attributes:
        hazards: Where in forward the reason lies, as far as it could be found.
    """

    def __init__(self, message: str, hazards: tuple[Hazard, ...] = ()) -> None:
        super().__init__(message)
        self.hazards = hazards


class ParityError(ExportError):
    """The exported file does not answer what the module answers.

    Attributes:
        output: Name of the output that differs.
        shape: Shape that the module gives for it, or None if the file gave no answer.
        case: What was run, such as ``"batch=5"``.
        index: Place of the first differing value, or None if the values were not reached.
        hazards: Places in forward that may explain the difference.
    """

    def __init__(
        self,
        message: str,
        *,
        output: str,
        case: str,
        shape: tuple[int, ...] | None = None,
        index: tuple[int, ...] | None = None,
        hazards: tuple[Hazard, ...] = (),
    ) -> None:
        super().__init__(message)
        self.output = output
        self.case = case
        self.shape = shape
        self.index = index
        self.hazards = hazards
