# SPDX-License-Identifier: Apache-2.0
"""A loop of your own on the engine's devices, strategies, number formats, data and checkpoints."""

from __future__ import annotations

from leyden.core.fabric.fabric import Fabric
from leyden.core.fabric.wrappers import is_wrapped
from leyden.core.seeding import seed_everything

__all__ = ["Fabric", "is_wrapped", "seed_everything"]
