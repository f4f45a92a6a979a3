# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the seeding of random generators."""

from __future__ import annotations

from leyden.core.seeding import isolate_rng as isolate_rng
from leyden.core.seeding import pl_worker_init_function as pl_worker_init_function
from leyden.core.seeding import reset_seed as reset_seed
from leyden.core.seeding import seed_everything as seed_everything

__all__ = ["isolate_rng", "pl_worker_init_function", "reset_seed", "seed_everything"]
