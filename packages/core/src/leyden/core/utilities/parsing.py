# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the dict with attributes."""

from __future__ import annotations

from leyden.core.hparams import AttributeDict as AttributeDict

__all__ = ["AttributeDict"]
