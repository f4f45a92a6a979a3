# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the loader of several loaders."""

from __future__ import annotations

from leyden.core.data.combined import CombinedLoader as CombinedLoader

__all__ = ["CombinedLoader"]
