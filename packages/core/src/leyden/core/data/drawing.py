# SPDX-License-Identifier: Apache-2.0
"""Drawing indices from a given random state, without a trace in the process's own."""

from __future__ import annotations

import hashlib
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


Held = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def generators_of(*owners: Any) -> list[Held]:
    """Return the generators that samplers hold as attributes, each once, in a fixed order."""
    found: list[Held] = []
    for owner in owners:
        for held in (getattr(owner, "generator", None), *getattr(owner, "__dict__", {}).values()):
            if isinstance(held, Held) and not any(each is held for each in found):
                found.append(held)
    return found


def state_of(generator: Held) -> Any:
    """Return the state of a generator as a tensor or plain data."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    numpy = isinstance(generator, np.random.Generator)
    return _plain(generator.bit_generator.state if numpy else generator.get_state(legacy=False))  # type: ignore[union-attr]


def set_state(generator: Held, state: Any) -> None:
    """Set what `state_of` returned."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _with_arrays(state)
    else:
        generator.set_state(_with_arrays(state))


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _with_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _with_arrays(value) for key, value in state.items()}
    return np.array(state, dtype=np.uint64) if isinstance(state, list) else state


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


def apart(start: dict[str, Any]) -> Drawing:
    """Return a random state of its own for what a pass draws after its first indices: a function of its start."""
    digest = hashlib.blake2b(digest_size=8)
    for state in (start["torch"], start["numpy"]["keys"]):
        digest.update(state.numpy())
    digest.update(repr((start["python"], start["numpy"]["pos"])).encode())
    seed = int.from_bytes(digest.digest(), "little")
    torch_state = torch.Generator().manual_seed(seed % 2**63).get_state()
    return Drawing({**seeded(seed), "torch": torch_state, "generators": []})


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

    def __init__(self, state: dict[str, Any], generators: Sequence[Held] = ()) -> None:
        self.state, self._generators = state, generators
        # the accelerators' generators are asked only if they are part of the state
        self._all = "cuda" in state
        for generator, each in zip(generators, state["generators"], strict=False):
            set_state(generator, each)

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
        return {**self.state, "generators": [state_of(generator) for generator in self._generators]}
