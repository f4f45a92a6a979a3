# SPDX-License-Identifier: Apache-2.0
"""Progress on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from leyden.core.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from leyden.core.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar
else:
    _LAZY = {
        "ProgressBar": "leyden.core.callbacks.progress.progress_bar",
        "RichProgressBar": "leyden.core.callbacks.progress.rich_progress",
        "TQDMProgressBar": "leyden.core.callbacks.progress.tqdm_progress",
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


__all__ = [
    "ProgressBar",
    "RichProgressBar",
    "TQDMProgressBar",
]
