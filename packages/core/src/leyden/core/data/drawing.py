# SPDX-License-Identifier: Apache-2.0
"""Drawing indices from a given random state, without a trace in the process's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from leyden.core.seeding import collect_rng_state, restore_rng_state

# they draw from the process's generators when their iteration begins, and not again
_AT_ONCE = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_IN_ORDER = (SequentialSampler, list, tuple, range)


def generators_of(*owners: Any) -> list[torch.Generator]:
    """Return the generators of samplers, each once, in a fixed order."""
    found: list[torch.Generator] = []
    for owner in owners:
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator) and not any(g is generator for g in found):
            found.append(generator)
    return found


def draws_at_once(sampler: Any) -> bool:
    """Tell whether a sampler is done with the process's generators once it has given its first indices."""
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    return type(inner) in _AT_ONCE


def draws_nothing(sampler: Any) -> bool:
    """Tell whether a sampler gives the same indices whatever the random state is."""
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    return type(inner) in _IN_ORDER


def seeded(seed: int) -> dict[str, Any]:
    """Return states of Python's and NumPy's generators, as `collect_rng_state` does, that a seed makes."""
    outside = collect_rng_state(False)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    state = collect_rng_state(False)
    restore_rng_state(outside)
    # processes send it to each other, and torch can not unpickle the unsigned numbers that NumPy has
    numpy = {**state["numpy"], "keys": state["numpy"]["keys"].to(torch.int64)}
    return {"python": state["python"], "numpy": numpy}


class Drawing:
    """A random state of its own for a pass; a block in which it is the process's.

    Args:
        state: What `collect_rng_state` returned, and the states of the samplers' own ``generators``, which are set at
            once.
        generators: The generators.

    Attributes:
        state: Where the state stood when the last block ended.

    Examples:
        >>> import torch
        >>> from leyden.core.data.drawing import Drawing
        >>> from leyden.core.seeding import collect_rng_state
        >>> drawing = Drawing({**collect_rng_state(), "generators": []}, [])
        >>> with drawing:
        ...     first = torch.rand(1)
        >>> bool(torch.rand(1) == first)
        True
    """

    def __init__(self, state: dict[str, Any], generators: Sequence[torch.Generator]) -> None:
        self.state, self._generators = state, generators
        # the accelerators' generators are asked only if they are part of the state
        self._all = "cuda" in state
        for generator, each in zip(generators, state["generators"], strict=True):
            generator.set_state(each)

    def __enter__(self) -> None:
        self._outside = collect_rng_state(self._all)
        restore_rng_state(self.state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state = collect_rng_state(self._all)
        restore_rng_state(self._outside)

    def now(self) -> dict[str, Any]:
        """Return the state with that of the generators, to begin another pass from."""
        return {**self.state, "generators": [generator.get_state() for generator in self._generators]}
