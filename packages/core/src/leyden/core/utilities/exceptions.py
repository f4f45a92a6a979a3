# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the exception of wrong configurations."""

from __future__ import annotations

from leyden.core.errors import MisconfigurationException as MisconfigurationException

__all__ = ["MisconfigurationException"]
