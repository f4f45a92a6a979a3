# SPDX-License-Identifier: Apache-2.0
"""Callbacks that come with the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.callback import Callback as Callback
    from leyden.core.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from leyden.core.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from leyden.core.callbacks.progress import ProgressBar as ProgressBar
    from leyden.core.callbacks.progress import TQDMProgressBar as TQDMProgressBar
    from leyden.core.callbacks.summary import ModelSummary as ModelSummary
else:
    _LAZY = {
        "Callback": "leyden.core.callback",
        "EarlyStopping": "leyden.core.callbacks.early_stopping",
        "ModelCheckpoint": "leyden.core.callbacks.model_checkpoint",
        "ModelSummary": "leyden.core.callbacks.summary",
        "ProgressBar": "leyden.core.callbacks.progress",
        "TQDMProgressBar": "leyden.core.callbacks.progress",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ["Callback", "EarlyStopping", "ModelCheckpoint", "ModelSummary", "ProgressBar", "TQDMProgressBar"]
