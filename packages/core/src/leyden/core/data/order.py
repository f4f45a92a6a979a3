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

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from leyden.core.data.combined import sized_length
from leyden.core.data.drawing import (
    Drawing,
    Held,
    apart,
    draws_at_once,
    draws_nothing,
    generators_of,
    seeded,
    set_state,
    state_of,
)
from leyden.core.data.seeds import Seeds, draws_when_fetched, seed_generators, sent
from leyden.core.data.shard import Share, can_be_shared
from leyden.core.errors import PossibleUserWarning, warn
from leyden.core.seeding import collect_rng_state, isolate_rng, restore_rng_state

_OVER = object()
# a feed asks for the next batch to know whether one is the last, and a copy to a device begins one earlier
_KEPT = 4


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

    A map-style `torch.utils.data.DataLoader` is observed at its sampler. Any other iterable goes on from its own
    ``state_dict`` if it has one, and is gone through again if it has none.

    Args:
        loader: What is iterated over.
        shard: The share of the batches that is this process's; None for all of them. It is nothing to loaders whose
            samples can not be dealt out.
        agree: Returns what it is given in the first process, on all processes; None where each draws for itself.
        rank: Number of this process, to seed every batch of a map-style `DataLoader` that has a batch size; None to
            leave generators alone. NumPy's and Python's stay where fetching has left them.

    Attributes:
        shard: This process's share of the batches; None for all of them.
        start: Where the current pass began; None if that is not known.
        drawn: Where the indices of each batch are noted while the sampler draws them; None for nowhere.
        looks_ahead: Whether batches are asked for before those in front of them are consumed.
    """

    looks_ahead = True

    def __init__(
        self,
        loader: Iterable[Any],
        shard: Share | None = None,
        agree: Callable[[Any], Any] | None = None,
        rank: int | None = None,
    ) -> None:
        self.loader, self.agree = loader, agree
        self.start: dict[str, Any] | None = None
        self.shard = shard if can_be_shared(loader) else None
        self.drawn: deque[list[int]] | None = None
        self._states: dict[int, Any] = {}
        self._pass: tuple[dict[str, Any], int] | None = None
        self._following: dict[str, Any] | None = None
        self._drawing: Drawing | None = None
        self._attribute: str | None = None
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            self._attribute = "batch_sampler" if loader.batch_sampler is not None else "sampler"
        seeds = self._attribute == "batch_sampler" and draws_when_fetched(loader)  # type: ignore[arg-type]
        self._rank = rank if seeds else None
        self._outside: torch.Tensor | None = None

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

    @property
    def generators(self) -> list[Any]:
        """The states of the generators that the samplers hold. Those of a run that is gone on from can be set."""
        return [state_of(generator) for generator in self._generators()]

    @generators.setter
    def generators(self, states: list[Any]) -> None:
        for generator, state in zip(self._generators(), states, strict=False):
            set_state(generator, state)

    def _generators(self) -> list[Held]:
        inner = self.sampler
        return generators_of(inner, getattr(inner, "sampler", None), getattr(self.loader, "sampler", None), self.loader)

    def own_start(self) -> dict[str, Any]:
        """Return where a pass of this process alone would begin, and move on from there."""
        # a loader draws a seed for its workers before its sampler begins
        seed = torch.empty((), dtype=torch.int64).random_(generator=getattr(self.loader, "generator", None)).item()
        state = collect_rng_state(False)
        # what is drawn from a pass's state moves no generator on, and the next pass must not have the same order
        return {**state, **seeded(int(seed)), "generators": self.generators}

    def run(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Iterate over a sampler as `iterate` asked for: from its beginning, recorded, or from a known start."""
        begin, self._pass = self._pass, None
        if begin is None:
            self.start = {**collect_rng_state(), "generators": self.generators}
            batches = self._further(self.own(inner), inner)
        else:
            batches = self._known(inner, *begin)
        if self.drawn is not None:
            batches = _noted(batches, self.drawn)
        yield from batches if self._rank is None else self._seeded(batches, 0 if begin is None else begin[1])

    def _seeded(self, batches: Iterator[Any], position: int) -> Iterator[Any]:
        """Give indices with the seed of their batch; without workers, the generators are seeded for the fetch."""
        seeds, workers = None, self.loader.num_workers > 0  # type: ignore[attr-defined]
        for number, indices in enumerate(batches, position):
            if seeds is None:
                assert self.start is not None
                assert self._rank is not None
                seeds = Seeds(self.start, self._rank)
            if type(indices) is not list:
                yield indices
            elif workers:
                yield sent(indices, seeds.of(number))
            else:
                self._outside = torch.default_generator.get_state()
                self._remember()
                seed_generators(seeds.of(number))
                yield indices

    def _put_back(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Give batches that are fetched in this process, without a trace of their seeds in torch's generator.

        In those of Python and NumPy, which are slower to put back, none is left when the pass ends.
        """
        try:
            while True:
                try:
                    batch = next(batches, _OVER)
                finally:
                    outside, self._outside = self._outside, None
                    if outside is not None:
                        torch.default_generator.set_state(outside)
                if batch is _OVER:
                    return
                yield batch
        finally:
            self.forget_seeds()

    def pass_over(self, start: Any, generators: list[Any]) -> None:
        """Stand where the pass that began at ``start`` was over."""
        self.start = start if isinstance(start, dict) else None
        self.generators = generators
        if self.start is not None and "loader" in self.start and self._has_state:
            # the next pass is another one than the first, and that of the file was over
            self.loader.load_state_dict(copy.deepcopy(self.start["loader"]))  # type: ignore[attr-defined]
            with isolate_rng():
                more = next(iter(self.loader), _OVER) is not _OVER
            if more and not isinstance(self.loader, DataLoader):
                self.loader.load_state_dict(copy.deepcopy(self.start["loader"]))  # type: ignore[attr-defined]

    def _remember(self) -> None:
        if self.start is not None and "beside" not in self.start:
            state = collect_rng_state(False)
            self.start = {**self.start, "beside": {name: state[name] for name in ("python", "numpy")}}

    def forget_seeds(self) -> None:
        """Put Python's and NumPy's generators back to where they stood before batches seeded them, if any did."""
        beside = self.start.get("beside") if self.start is not None else None
        if beside is not None:
            restore_rng_state({**beside, "torch": torch.get_rng_state()})

    def _known(self, inner: Iterable[Any], start: dict[str, Any], position: int) -> Iterator[Any]:
        self.start = start
        drawing = Drawing(start, self._generators())
        with drawing:
            # with its first indices a sampler draws its order
            batches = self.own(inner)
            first = list(islice(batches, 1))
        yield from self._further(chain(first, batches), inner, position)
        self._following = {**(self._drawing or drawing).state, "generators": self.generators}

    def _further(self, batches: Iterator[Any], inner: Iterable[Any], position: int = 0) -> Iterator[Any]:
        """Give the indices of a pass, from a position on.

        What a sampler draws between two batches it draws from a stream of the pass's own. The process's would give it
        other numbers whenever something else draws in between, and no resumed run could draw them again.
        """
        self._drawing = None
        if draws_nothing(inner):
            yield from islice(batches, position, None)
            return
        if draws_at_once(inner):
            # torch's draw once more when they are over, and workers ask for that before the last batch is given
            batches = islice(batches, position, None)
            following = next(batches, _OVER)
            while following is not _OVER:
                given, following = following, next(batches, _OVER)
                yield given
            return
        first = list(islice(batches, 1))
        if not position:
            yield from first
        assert self.start is not None
        drawing = self._drawing = apart(self.start)
        with drawing:
            for _ in range(position - 1):
                next(batches, None)
            more = list(islice(batches, 1))
        while more:
            yield from more
            with drawing:
                more = list(islice(batches, 1))

    def own(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Draw from a sampler what is this process's."""
        return iter(inner) if self.shard is None else self.shard.batches(inner)

    def iterate(self, position: int = 0, start: dict[str, Any] | None = None) -> Iterator[Any]:
        """Begin an epoch.

        Args:
            position: How many batches were consumed already.
            start: What `start` held when they were; None if the order was not recorded.
        """
        if start is None and not position and self.agree is not None and self.agrees:
            return self.go_on(0, self.agree(self.own_start()))
        return self.go_on(position, start) if position or start is not None else self.begin()

    def go_on(self, position: int, start: dict[str, Any] | None) -> Iterator[Any]:
        """Begin the pass that began at ``start``, at a position; at its beginning if the start is not known."""
        if start is not None and self._attribute is not None:
            self._pass = (start, position)
            return self._begun()
        if self._attribute is None and (position or start is not None):
            return self._gone_on(position, start or {})
        batches = self.begin()
        for _ in range(position):
            next(batches, None)
        return batches

    def _gone_on(self, position: int, start: dict[str, Any]) -> Iterator[Any]:
        """Begin a pass of an iterable at a position: from its own state, or by going through it again."""
        self.start = start or None
        if position and "loader" in start and self._has_state:
            self.loader.load_state_dict(copy.deepcopy(start["loader"]))  # type: ignore[attr-defined]
            return self._watched(iter(self.loader), position)
        if position and self.replays:
            warn(
                "LY-D008",
                f"The run goes on with batch {position} of a {type(self.loader).__qualname__} without `state_dict` and"
                f" `load_state_dict`, so that the {position} batches before it are loaded once more, which takes as"
                " long as it did, and the data are the same only if it gives them in the same order again. torchdata's"
                " StatefulDataLoader goes on at once.",
                PossibleUserWarning,
                stacklevel=2,
            )
        batches: Iterator[Any]
        with Drawing(start) if "torch" in start else nullcontext():
            batches = iter(self.loader)
            for _ in range(position):
                next(batches, None)
        return self._watched(batches, position)

    @property
    def replays(self) -> bool:
        """Whether a pass can be gone on with only by loading again what it gave before."""
        return self._attribute is None and not self._has_state and not isinstance(self.loader, (list, tuple, range))

    @property
    def _has_state(self) -> bool:
        if self._attribute is not None:
            return False
        return all(callable(getattr(self.loader, name, None)) for name in ("state_dict", "load_state_dict"))

    def _watched(self, batches: Iterator[Any], position: int) -> Iterator[Any]:
        """Give batches, and keep the loader's states behind those that may not be consumed yet."""
        self._states.clear()
        if not (self.looks_ahead and self._has_state):
            return batches
        return self._kept(batches, position)

    def _kept(self, batches: Iterator[Any], position: int) -> Iterator[Any]:
        for given, batch in enumerate(batches, position + 1):
            self._states[given] = copy.deepcopy(self.loader.state_dict())  # type: ignore[attr-defined]
            self._states.pop(given - _KEPT, None)
            yield batch

    def place(self, position: int) -> dict[str, Any] | None:
        """Return what `iterate` needs to go on at a position, which is that of the batches consumed.

        Args:
            position: The position; 0 between two passes.
        """
        if self.start is None or not self._has_state:
            return self.start
        if not self.looks_ahead or not position:
            return {**self.start, "loader": copy.deepcopy(self.loader.state_dict())}  # type: ignore[attr-defined]
        return {**self.start, "loader": self._states[position]} if position in self._states else self.start

    def begin(self) -> Iterator[Any]:
        """Begin a further pass; processes that agreed on one before need not do so again."""
        following = self._following or self.start
        self._pass = (following, 0) if self.agrees and following is not None else None
        return self._begun()

    def _begun(self) -> Iterator[Any]:
        if self.shard is not None or self._rank is not None:
            self.attach()
        if self._attribute is None:
            self.start = {**collect_rng_state(), "generators": []}
            return self._watched(iter(self.loader), 0)
        recorded = self._recorded()
        if recorded is not None:
            recorded.waiting = [order for order in recorded.waiting if order is not self] + [self]
        if getattr(self.loader, "_iterator", None) is not None and self.loader.persistent_workers:  # type: ignore[attr-defined]
            # workers that stay take no new seed; a resumed run has new ones, which do
            torch.empty((), dtype=torch.int64).random_(generator=self.loader.generator)  # type: ignore[attr-defined]
        batches = iter(self.loader)
        if self._rank is not None and self.loader.num_workers == 0:  # type: ignore[attr-defined]
            batches = self._put_back(batches)
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
