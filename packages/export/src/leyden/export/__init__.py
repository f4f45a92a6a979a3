# SPDX-License-Identifier: Apache-2.0
"""Export PyTorch modules, and prove each export right, number by number, before its file exists."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.export._export import export as export
    from leyden.export.contract import TensorSpec as TensorSpec
    from leyden.export.errors import DamagedFileError as DamagedFileError
    from leyden.export.errors import ExportError as ExportError
    from leyden.export.errors import ExportValueError as ExportValueError
    from leyden.export.errors import MissingExtraError as MissingExtraError
    from leyden.export.errors import ParityError as ParityError
    from leyden.export.errors import UnsupportedModuleError as UnsupportedModuleError
    from leyden.export.exported import Exported as Exported
    from leyden.export.exported import FileInfo as FileInfo
    from leyden.export.exported import inspect as inspect
    from leyden.export.exported import load as load
    from leyden.export.registry import list_formats as list_formats
    from leyden.export.report import Bound as Bound
    from leyden.export.report import Case as Case
    from leyden.export.report import Hazard as Hazard
    from leyden.export.report import Report as Report
    from leyden.export.verification import verify as verify

    __version__: str
else:
    _LAZY = {
        "Bound": "report",
        "Case": "report",
        "DamagedFileError": "errors",
        "ExportError": "errors",
        "ExportValueError": "errors",
        "Exported": "exported",
        "FileInfo": "exported",
        "Hazard": "report",
        "MissingExtraError": "errors",
        "ParityError": "errors",
        "Report": "report",
        "TensorSpec": "contract",
        "UnsupportedModuleError": "errors",
        "export": "_export",
        "inspect": "exported",
        "list_formats": "registry",
        "load": "exported",
        "verify": "verification",
    }

    def __getattr__(name):
        import importlib
        import sys

        if name == "__version__":
            from importlib.metadata import version

            return version("leyden-export")
        if name not in _LAZY:
            # With name and obj the interpreter adds the nearest name.
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted([*globals(), *_LAZY, "__version__"])


__all__ = [
    "Bound",
    "Case",
    "DamagedFileError",
    "ExportError",
    "ExportValueError",
    "Exported",
    "FileInfo",
    "Hazard",
    "MissingExtraError",
    "ParityError",
    "Report",
    "TensorSpec",
    "UnsupportedModuleError",
    "export",
    "inspect",
    "list_formats",
    "load",
    "verify",
]
