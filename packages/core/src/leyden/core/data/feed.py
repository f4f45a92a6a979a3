# SPDX-License-Identifier: Apache-2.0
"""Feed: the batches of a loader or of several, counted, limited, at a position, and on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from typing import Any

from leyden.core.data.ahead import DeviceCopies, has_workers
from leyden.core.data.combined import CombinedLoader
from leyden.core.data.order import Order, set_epoch
from leyden.core.data.orders import Orders
from leyden.core.data.rounds import REST, Rounds, may_be_uneven, tells_its_length
from leyden.core.data.shard import Shard, Share, can_be_shared
from leyden.core.data.source import is_collection
from leyden.core.errors import MisconfigurationException


def limited(length: int | None, limit: float | int, flag: str) -> int | None:
    """Return how many batches to take.

    Args:
        length: Batches of the loader, or None if unknown.
        limit: An int counts batches, a float is a fraction.
        flag: Name of the flag that holds the limit.

    Raises:
        MisconfigurationException: A fraction of an unknown number, or one that leaves nothing.
    """
    if isinstance(limit, int):
        return limit if length is None else min(length, limit)
    if limit == 1.0 or limit == 0.0:
        return 0 if limit == 0.0 else length
    if length is None:
        raise MisconfigurationException(
            f"When using an `IterableDataset`, `Trainer({flag})` must be `1.0` or an int. An int specifies"
            f" `num_{_stage(flag)}_batches` to use, as for every loader without a length; got {limit}."
        )
    count = int(length * limit)
    if count == 0 and length > 0:
        raise MisconfigurationException(
            f"You requested to check {limit} of the `{_stage(flag)}_dataloader` but {limit} * {length} < 1."
            f" Please increase the `{flag}` argument. Try at least `{flag}={1 / length}`"
        )
    return count


def _stage(flag: str) -> str:
    return flag.removeprefix("limit_").removesuffix("_batches")


class Feed:
    """The batches of one loader, or of several in the shape of their collection.

    Args:
        loader: Any iterable of batches, a collection of such (shorter ones begin again until the longest is over), or
            a `CombinedLoader`.
        limit: How many batches: an int, or a fraction as a float.
        flag: Name of the flag that holds ``limit``.
        prepare: Brings a batch to its device, or None if there is nothing to do.
        name: Name of the loader, where loaders come in a dict.
        shard: The share of the batches that is this process's: a `Shard`, or an `EvaluationShare` where results are
            measured; None for all of them. It is at work until ``order.detach``. Loaders over data sets that can only
            be iterated over, or with a sampler that draws for one process, are left as they are.
        agree: Returns what it is given in the first process, on all processes; called once for a pass over shared
            batches in random order. None where processes draw alike without it.
        rounds: What keeps processes together whose loaders may end at different times; None where nothing has to.
        rank: Number of this process, to seed every batch of a loader that may draw random numbers when it fetches
            them; None to leave generators alone.

    Attributes:
        loader: What is iterated over: the loader, or the `CombinedLoader` of several.
        given: The loader or the collection of loaders.
        available: Batches per pass without the limit, or None if unknown.
        length: Batches per pass, or None if unknown.
        copies: What copies the next batch before it is asked for, or None if batches are copied one by one.
        is_last: Whether the batch that was just given is the last one.
    """

    def __init__(
        self,
        loader: Any,
        limit: float | int,
        flag: str,
        prepare: Callable[[Any], Any] | None = None,
        name: str | None = None,
        shard: Share | None = None,
        agree: Callable[[Any], Any] | None = None,
        rounds: Rounds | None = None,
        rank: int | None = None,
    ) -> None:
        self.prepare, self.name = prepare, name
        self._like = partial(Feed, prepare=prepare, name=name, shard=shard, agree=agree, rounds=rounds, rank=rank)
        self.loader: Iterable[Any] = CombinedLoader(loader, "max_size_cycle") if is_collection(loader) else loader
        self.order: Order | Orders
        if isinstance(self.loader, CombinedLoader):
            if rounds is not None and rounds.joins:
                raise MisconfigurationException(
                    "`uneven='join'` takes one training loader; got a collection of them. Use 'stop' or 'pad'."
                )
            self.given = self.loader.iterables
            self.order = Orders(self.loader, shard, agree, rank)
            sizes = [part.length for part in self.order.parts]
            limits = [inf if (n := limited(size, limit, flag)) is None else n for size in sizes]
            # a loader without a length may end before all others, whatever they say
            whole = [inf if size is None else size for size in sizes]
            self.available = None if None in sizes else self.loader.length(whole)
            self.length = self.loader.length(limits)
            self.order.limits = limits
        else:
            self.given = loader
            self.order = Order(loader, shard, agree, rank)
            self.available = self.order.length
            if rounds is not None and rounds.joins:
                # rounds are counted, of which the first process has a batch of each
                first = replace(shard, rank=0) if isinstance(shard, Shard) and can_be_shared(loader) else None
                self.available = None if first is None else Order(loader, first).length
            self.length = limited(self.available, limit, flag)
        self._known = all(tells_its_length(leaf) for leaf in self._leaves)
        joined = rounds is not None and rounds.joins
        self.rounds = rounds if joined or any(may_be_uneven(leaf) for leaf in self._leaves) else None
        self.copies = prepare if isinstance(prepare, DeviceCopies) and has_workers(self.loader) else None
        if isinstance(self.order, Order):
            self.order.looks_ahead = self.copies is not None or self.rounds is not None or not self.sized
        self.is_last = False

    @property
    def sized(self) -> bool:
        """Whether the loader itself knows how many batches it has."""
        return self.available is not None

    @property
    def orders(self) -> list[Order]:
        """The order of each loader."""
        return [self.order] if isinstance(self.order, Order) else list(self.order.parts)

    @property
    def _leaves(self) -> list[Any]:
        return self.loader.flattened if isinstance(self.loader, CombinedLoader) else [self.loader]

    def set_epoch(self, epoch: int) -> None:
        """Tell the samplers which epoch begins, if they want to know."""
        for leaf in self._leaves:
            set_epoch(leaf, epoch)

    def first(self, limit: float | int, flag: str) -> Feed:
        """Return a feed of the same loader with another limit."""
        return self._like(self.loader, limit, flag)

    def batches(self, position: int = 0, start: Any = None) -> Iterator[Any]:
        """Begin a pass; the loader's iterator exists when this returns, the first batch is fetched later.

        Args:
            position: Batches consumed already.
            start: The recorded start of the order, to go on in the middle exactly; one that was recorded of another
                kind of loader is not used.
        """
        self.is_last = False
        if self.length is not None and self.length <= position and self.rounds is None:
            return iter(())
        if isinstance(self.order, Orders):
            source = self.order.iterate(position, start)
        else:
            source = self.order.iterate(position, start if isinstance(start, dict) else None)
        if self.rounds is not None:
            return self._in_rounds(self.rounds, source, position)
        return self._sized(source, position) if self.sized else self._ahead(source, position)

    def _sized(self, source: Iterator[Any], position: int) -> Iterator[Any]:
        prepare, length = self.prepare, self.length
        assert length is not None
        if self.copies is not None:
            source, prepare = self.copies.ahead(source, length - position), None
        last = length - 1
        for index in range(position, length):
            try:
                batch = next(source)
            except StopIteration:
                return
            if index == last:
                self.is_last = True
            yield batch if prepare is None else prepare(batch)

    def _ahead(self, source: Iterator[Any], position: int) -> Iterator[Any]:
        # without a length, only the next batch can tell that this one is not the last
        prepare, length = self.prepare, self.length
        missing = object()
        following = next(source, missing)
        index = position
        while following is not missing:
            batch = following
            index += 1
            following = missing if index == length else next(source, missing)
            self.is_last = following is missing
            yield batch if prepare is None else prepare(batch)

    def _in_rounds(self, rounds: Rounds, source: Iterator[Any], position: int) -> Iterator[Any]:
        count = self._left(position)
        total = rounds.agreed(count if self._known else None)
        if count is not None:
            source = islice(source, count)
        if count is None or total is None:
            given = rounds.over(source, self._again)
        else:
            given = rounds.counted(source, self._again, count, total)
        for batch, last in given:
            self.is_last = last
            yield batch if self.prepare is None or batch is REST else self.prepare(batch)

    def _left(self, position: int) -> int | None:
        """Return how many batches this process has from a position on, or None if that is not known."""
        # where processes may rest, the length is that of the one with most batches, or not known
        own = self.order.length if isinstance(self.order, Order) else None
        known = [length for length in (own, self.length) if length is not None]
        return max(min(known) - position, 0) if known else None

    def _again(self) -> Iterator[Any]:
        # not as a pass of the order: what is recorded is the pass that batches are counted in
        if isinstance(self.loader, CombinedLoader):
            return (batch for batch, _, _ in self.loader)
        return iter(self.loader)
