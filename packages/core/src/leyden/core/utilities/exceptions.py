# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for exceptions."""

from __future__ import annotations

from leyden.core.errors import Interrupted as SIGTERMException
from leyden.core.errors import MisconfigurationException as MisconfigurationException

__all__ = ["MisconfigurationException", "SIGTERMException"]
