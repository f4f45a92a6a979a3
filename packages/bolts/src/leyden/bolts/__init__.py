# SPDX-License-Identifier: Apache-2.0
"""Model systems with a config, a paper and a licence, found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.bolts.declaration import bolt as bolt
    from leyden.bolts.digits_classifier import DigitsClassifier as DigitsClassifier
    from leyden.bolts.digits_classifier import DigitsConfig as DigitsConfig
    from leyden.bolts.digits_data import DigitsDataModule as DigitsDataModule
    from leyden.bolts.errors import BoltError as BoltError
    from leyden.bolts.errors import BoltValueError as BoltValueError
    from leyden.bolts.errors import BrokenBoltError as BrokenBoltError
    from leyden.bolts.info import ConfigField as ConfigField
    from leyden.bolts.info import ModelInfo as ModelInfo
    from leyden.bolts.registry import create_model as create_model
    from leyden.bolts.registry import describe as describe
    from leyden.bolts.registry import list_models as list_models

    __version__: str
else:
    _LAZY = {
        "BoltError": "errors",
        "BoltValueError": "errors",
        "BrokenBoltError": "errors",
        "ConfigField": "info",
        "DigitsClassifier": "digits_classifier",
        "DigitsConfig": "digits_classifier",
        "DigitsDataModule": "digits_data",
        "ModelInfo": "info",
        "bolt": "declaration",
        "create_model": "registry",
        "describe": "registry",
        "list_models": "registry",
    }

    def __getattr__(name):
        import sys
        from importlib import import_module

        if name in _LAZY:
            value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        elif name == "__version__":
            from importlib.metadata import version

            value = version("leyden-bolts")
        else:
            # With name and obj the interpreter adds the nearest name.
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "BoltError",
    "BoltValueError",
    "BrokenBoltError",
    "ConfigField",
    "DigitsClassifier",
    "DigitsConfig",
    "DigitsDataModule",
    "ModelInfo",
    "bolt",
    "create_model",
    "describe",
    "list_models",
]
