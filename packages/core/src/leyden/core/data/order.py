# SPDX-License-Identifier: Apache-2.0
"""The order of a loader's data: recorded where the sampler starts, replayed by position, dealt out to processes.

A sampler's order is a function of the random state at the moment its iteration begins. That state is recorded; to go
on in the middle, it is set again, the sampler runs to the position (indices only, no data is read), and every generator
is put back.

Processes that share a loader's batches must draw them in the same order, whatever each has drawn otherwise. So they
agree on that state when a pass begins: the first process's is everybody's while indices are drawn, and nobody's own
generators move with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from leyden.core.data.combined import sized_length
from leyden.core.data.drawing import Drawing, draws_at_once, draws_nothing, generators_of, seeded
from leyden.core.data.shard import Share, can_be_shared
from leyden.core.errors import PossibleUserWarning, warn
from leyden.core.seeding import collect_rng_state

_OVER = object()


class _Recorded(BatchSampler):
    """A sampler that the orders of a loader observe.

    An iteration is the pass of the order that waits for it longest. One that nobody waits for, because user code goes
    through the loader, is not recorded.
    """

    def __init__(self, inner: Iterable[Any]) -> None:
        self.inner = inner
        self.orders: list[Order] = []
        self.waiting: list[Order] = []

    def __iter__(self) -> Iterator[Any]:
        # not before the first index is asked for: a loader with workers begins twice
        if self.waiting:
            yield from self.waiting.pop(0).run(self.inner)
        else:
            yield from self.orders[0].own(self.inner) if self.orders else self.inner

    def __len__(self) -> int:
        shard = self.orders[0].shard if self.orders else None
        return len(self.inner) if shard is None else shard.length(self.inner)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "orders", "waiting"):
            raise AttributeError(name)
        return getattr(self.inner, name)


class Order:
    """The order of one loader over one epoch.

    A map-style `torch.utils.data.DataLoader` is observed at its sampler; any other iterable is replayed by going
    through it.

    Args:
        loader: What is iterated over.
        shard: The share of the batches that is this process's; None for all of them. It is nothing to loaders whose
            samples can not be dealt out.
        agree: Returns what it is given in the first process, on all processes; None where each draws for itself.

    Attributes:
        shard: This process's share of the batches; None for all of them.
        start: Where the current pass began; None if that is not known.
        drawn: Where the indices of each batch are noted while the sampler draws them; None for nowhere.
    """

    def __init__(
        self, loader: Iterable[Any], shard: Share | None = None, agree: Callable[[Any], Any] | None = None
    ) -> None:
        self.loader, self.agree = loader, agree
        self.start: dict[str, Any] | None = None
        self.shard = shard if can_be_shared(loader) else None
        self.drawn: deque[list[int]] | None = None
        self._pass: tuple[dict[str, Any], int] | None = None
        self._following: dict[str, Any] | None = None
        self._attribute: str | None = None
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            self._attribute = "batch_sampler" if loader.batch_sampler is not None else "sampler"

    def attach(self) -> None:
        """Observe the loader's sampler. `detach` puts everything back."""
        if self._attribute is None:
            return
        current = getattr(self.loader, self._attribute)
        if not isinstance(current, _Recorded):
            current = _Recorded(current)
            # DataLoader refuses plain assignment of its samplers once it is built
            object.__setattr__(self.loader, self._attribute, current)
            if getattr(self.loader, "_iterator", None) is not None:
                self.loader._iterator = None  # type: ignore[attr-defined]  # persistent workers hold the sampler they began with
        if self not in current.orders:
            current.orders.append(self)

    def detach(self) -> None:
        """Give the loader its own sampler back, if no other order observes it."""
        current = self._recorded()
        if current is None or self not in current.orders:
            return
        current.orders.remove(self)
        current.waiting = [order for order in current.waiting if order is not self]
        if not current.orders:
            assert self._attribute is not None
            object.__setattr__(self.loader, self._attribute, current.inner)

    def _recorded(self) -> _Recorded | None:
        current = getattr(self.loader, self._attribute) if self._attribute is not None else None
        return current if isinstance(current, _Recorded) else None

    @property
    def sampler(self) -> Any:
        """What draws the indices of the loader's batches; None if nothing does."""
        if self._attribute is None:
            return None
        recorded = self._recorded()
        return getattr(self.loader, self._attribute) if recorded is None else recorded.inner

    @property
    def length(self) -> int | None:
        """Batches of this process in a pass; None if that is not known."""
        if self.shard is None:
            return sized_length(self.loader)
        try:
            return self.shard.length(self.sampler)
        except (TypeError, NotImplementedError):
            return None

    @property
    def agrees(self) -> bool:
        """Whether processes must agree on where a pass begins."""
        return self.shard is not None and self.agree is not None and not draws_nothing(self.sampler)

    def _generators(self) -> list[torch.Generator]:
        inner = self.sampler
        return generators_of(inner, getattr(inner, "sampler", None), getattr(self.loader, "sampler", None), self.loader)

    def own_start(self) -> dict[str, Any]:
        """Return where a pass of this process alone would begin, and move on from there."""
        # a loader draws a seed for its workers before its sampler begins
        seed = torch.empty((), dtype=torch.int64).random_(generator=getattr(self.loader, "generator", None)).item()
        state = collect_rng_state(False)
        # what is drawn from a pass's state moves no generator on, and the next pass must not have the same order
        return {**state, **seeded(int(seed)), "generators": [g.get_state() for g in self._generators()]}

    def run(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Iterate over a sampler as `iterate` asked for: from its beginning, recorded, or from a known start."""
        begin, self._pass = self._pass, None
        if begin is None:
            self.start = {**collect_rng_state(), "generators": [g.get_state() for g in self._generators()]}
            batches = self.own(inner)
        else:
            batches = self._known(inner, *begin)
        if self.drawn is None:
            yield from batches
        else:
            yield from _noted(batches, self.drawn)

    def _known(self, inner: Iterable[Any], start: dict[str, Any], position: int) -> Iterator[Any]:
        self.start, agrees = start, self.agrees
        drawing = Drawing(start, self._generators())
        first: list[Any] = []
        with drawing:
            batches = self.own(inner)
            for _ in range(position):
                next(batches, None)
            if agrees or not position:
                # with its first indices a sampler draws its order
                first = list(islice(batches, 1))
        yield from first
        if agrees and not draws_at_once(inner):
            while first:
                with drawing:
                    first = list(islice(batches, 1))
                yield from first
        else:
            yield from batches
        self._following = drawing.now()

    def own(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Draw from a sampler what is this process's."""
        return iter(inner) if self.shard is None else self.shard.batches(inner)

    def iterate(self, position: int = 0, start: dict[str, Any] | None = None) -> Iterator[Any]:
        """Begin an epoch.

        Args:
            position: How many batches were consumed already.
            start: What `start` held when they were; None if the order was not recorded.
        """
        if position and start is not None and self._attribute is not None:
            return self.go_on(position, start)
        batches = self.begin() if self.agree is None or not self.agrees else self.go_on(0, self.agree(self.own_start()))
        for _ in range(position):
            next(batches, None)
        return batches

    def go_on(self, position: int, start: dict[str, Any] | None) -> Iterator[Any]:
        """Begin the pass that began at ``start``, at a position; at its beginning if the start is not known."""
        if start is not None and self._attribute is not None:
            self._pass = (start, position)
            return self._begun()
        batches = self.begin()
        for _ in range(position):
            next(batches, None)
        return batches

    def begin(self) -> Iterator[Any]:
        """Begin a further pass; processes that agreed on one before need not do so again."""
        following = self._following or self.start
        self._pass = (following, 0) if self.agrees and following is not None else None
        return self._begun()

    def _begun(self) -> Iterator[Any]:
        if self.shard is not None:
            self.attach()
        recorded = self._recorded()
        if recorded is not None:
            recorded.waiting = [order for order in recorded.waiting if order is not self] + [self]
        batches = iter(self.loader)
        return batches if recorded is None or self.shard is None else self._shared(batches, recorded)

    def _shared(self, batches: Iterator[Any], recorded: _Recorded) -> Iterator[Any]:
        first = next(batches, _OVER)
        if self in recorded.waiting:
            warn(
                "LY-D005",
                f"A {type(self.loader).__qualname__} did not ask its sampler for a new pass, so that every process gets"
                " all of its batches. Let its `__iter__` call that of `torch.utils.data.DataLoader`, or deal the data"
                " out yourself and set `use_distributed_sampler=False`.",
                PossibleUserWarning,
                stacklevel=2,
            )
        if first is not _OVER:
            yield first
            yield from batches


def _noted(batches: Iterator[Any], drawn: deque[list[int]]) -> Iterator[Any]:
    for indices in batches:
        drawn.append(list(indices) if isinstance(indices, (list, tuple)) else [indices])
        yield indices


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the samplers of a loader which epoch begins, if they want to know."""
    owners = getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    for owner in owners[:1] if owners[0] is owners[1] else owners:
        tell = getattr(owner, "set_epoch", None)
        if callable(tell):
            tell(epoch)
