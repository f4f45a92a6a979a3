# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for small things. The names only; what they are stands in the rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.data.combined import CombinedLoader as CombinedLoader
    from leyden.core.gradients import grad_norm as grad_norm
    from leyden.core.hparams import AttributeDict as AttributeDict
    from leyden.core.ranks import rank_zero_deprecation as rank_zero_deprecation
    from leyden.core.ranks import rank_zero_info as rank_zero_info
    from leyden.core.ranks import rank_zero_only as rank_zero_only
    from leyden.core.ranks import rank_zero_warn as rank_zero_warn
    from leyden.core.utilities.apply_func import move_data_to_device as move_data_to_device
    from leyden.core.utilities.enums import GradClipAlgorithmType as GradClipAlgorithmType
else:
    _LAZY = {
        "AttributeDict": "leyden.core.hparams",
        "CombinedLoader": "leyden.core.data.combined",
        "GradClipAlgorithmType": "leyden.core.utilities.enums",
        "grad_norm": "leyden.core.gradients",
        "move_data_to_device": "leyden.core.utilities.apply_func",
        "rank_zero_deprecation": "leyden.core.ranks",
        "rank_zero_info": "leyden.core.ranks",
        "rank_zero_only": "leyden.core.ranks",
        "rank_zero_warn": "leyden.core.ranks",
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
    "AttributeDict",
    "CombinedLoader",
    "GradClipAlgorithmType",
    "grad_norm",
    "move_data_to_device",
    "rank_zero_deprecation",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
]
