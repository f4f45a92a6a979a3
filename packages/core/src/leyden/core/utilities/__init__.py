# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for small things. The names only; what they are stands in the rooms."""

from __future__ import annotations

from leyden.core.data.combined import CombinedLoader as CombinedLoader

__all__ = ["CombinedLoader"]
