# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the norms of gradients."""

from __future__ import annotations

from leyden.core.gradients import grad_norm as grad_norm

__all__ = ["grad_norm"]
