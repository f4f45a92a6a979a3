# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the classes of warnings."""

from __future__ import annotations

from leyden.core.errors import PossibleUserWarning as PossibleUserWarning

__all__ = ["PossibleUserWarning"]
