# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for what only rank zero does."""

from __future__ import annotations

from leyden.core.errors import LightningDeprecationWarning as LightningDeprecationWarning
from leyden.core.ranks import rank_zero_debug as rank_zero_debug
from leyden.core.ranks import rank_zero_deprecation as rank_zero_deprecation
from leyden.core.ranks import rank_zero_info as rank_zero_info
from leyden.core.ranks import rank_zero_only as rank_zero_only
from leyden.core.ranks import rank_zero_warn as rank_zero_warn

__all__ = [
    "LightningDeprecationWarning",
    "rank_zero_debug",
    "rank_zero_deprecation",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
]
