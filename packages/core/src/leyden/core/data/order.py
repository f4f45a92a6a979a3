# SPDX-License-Identifier: Apache-2.0
"""The order of a loader's data: recorded where the sampler starts, replayed by position.

A sampler's order is a function of the random state at the moment its iteration begins. That state is recorded; to go
on in
the middle, it is set again, the sampler runs to the position (indices only, no data is read), and every generator is
put back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from leyden.core.data.shard import Shard
from leyden.core.seeding import collect_rng_state, restore_rng_state


def _generators(*owners: Any) -> list[torch.Generator]:
    """Return the generators of samplers, each once, in a fixed order."""
    found: list[torch.Generator] = []
    for owner in owners:
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator) and not any(g is generator for g in found):
            found.append(generator)
    return found


class _Recorded(BatchSampler):
    """A sampler that tells its `Order` when an iteration begins, and begins at a position when it is asked to."""

    def __init__(self, inner: Iterable[Any], order: Order) -> None:
        self.inner, self.order = inner, order

    def __iter__(self) -> Iterator[Any]:
        return self.order.run(self.inner)

    def __len__(self) -> int:
        whole = len(self.inner)  # type: ignore[arg-type]
        return whole if self.order.shard is None else self.order.shard.count(whole)

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "order"):
            raise AttributeError(name)
        return getattr(self.inner, name)


class Order:
    """The order of one loader over one epoch.

    A map-style `torch.utils.data.DataLoader` is observed at its sampler; any other iterable is replayed by going
    through it.

    Args:
        loader: What is iterated over.

    Attributes:
        shard: This process's share of the batches; None for all of them.
        drawn: Where the indices of each batch are noted while the sampler draws them; None for nowhere.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.start: dict[str, Any] | None = None
        self.shard: Shard | None = None
        self.drawn: deque[list[int]] | None = None
        self._replay: tuple[dict[str, Any], int] | None = None
        self._attribute: str | None = None
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            self._attribute = "batch_sampler" if loader.batch_sampler is not None else "sampler"

    def attach(self) -> None:
        """Observe the loader's sampler. `detach` puts everything back."""
        if self._attribute is not None:
            inner = getattr(self.loader, self._attribute)
            if getattr(self.loader, "_iterator", None) is not None:
                self.loader._iterator = None  # type: ignore[attr-defined]  # persistent workers hold the sampler they began with
            if not isinstance(inner, _Recorded):
                # DataLoader refuses plain assignment of its samplers once it is built
                object.__setattr__(self.loader, self._attribute, _Recorded(inner, self))

    def detach(self) -> None:
        """Give the loader its own sampler back."""
        if self._attribute is not None:
            current = getattr(self.loader, self._attribute)
            if isinstance(current, _Recorded) and current.order is self:
                object.__setattr__(self.loader, self._attribute, current.inner)

    def _owners(self, inner: Any) -> tuple[Any, ...]:
        return inner, getattr(inner, "sampler", None), getattr(self.loader, "sampler", None), self.loader

    def run(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Iterate over a sampler: from its beginning, recorded, or from the position asked for by `iterate`."""
        generators = _generators(*self._owners(inner))
        if self.drawn is not None:
            inner = _noted(inner, self.drawn)
        replay, self._replay = self._replay, None
        if replay is None:
            self.start = {**collect_rng_state(), "generators": [g.get_state() for g in generators]}
            yield from self._own(iter(inner))
            return
        self.start, position = replay
        outside = collect_rng_state()
        restore_rng_state(self.start)
        for generator, state in zip(generators, self.start["generators"], strict=True):
            generator.set_state(state)
        indices = self._own(iter(inner))
        for _ in range(position):
            next(indices, None)
        restore_rng_state(outside)
        yield from indices

    def _own(self, batches: Iterator[Any]) -> Iterator[Any]:
        return batches if self.shard is None else self.shard.take(batches)

    def iterate(self, position: int = 0, start: dict[str, Any] | None = None) -> Iterator[Any]:
        """Begin an epoch.

        Args:
            position: How many batches were consumed already.
            start: What `start` held when they were; None if the order was not recorded.
        """
        if position and start is not None and self._attribute is not None:
            self._replay = (start, position)
            return iter(self.loader)
        batches = iter(self.loader)
        if self._attribute is None:
            batches = self._own(batches)
        for _ in range(position):
            next(batches, None)
        return batches


def _noted(inner: Iterable[Any], drawn: deque[list[int]]) -> Iterator[Any]:
    for indices in inner:
        drawn.append(list(indices) if isinstance(indices, (list, tuple)) else [indices])
        yield indices


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the samplers of a loader which epoch begins, if they want to know."""
    owners = getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    for owner in owners[:1] if owners[0] is owners[1] else owners:
        tell = getattr(owner, "set_epoch", None)
        if callable(tell):
            tell(epoch)
