# SPDX-License-Identifier: Apache-2.0
"""The order of several loaders: where the current pass of each began, and its start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from leyden.core.data.combined import CombinedLoader, Item
from leyden.core.data.order import Order, _generators
from leyden.core.seeding import collect_rng_state, restore_rng_state


class _Part(Order):
    """The order of one loader of several; ``at`` is how many items were given when its current pass began."""

    def __init__(self, loader: Any, alone: bool) -> None:
        super().__init__(loader)
        self.at: int | None = None
        if not alone:
            # two passes at once through one sampler can not be told from each other
            self._attribute = None

    def go_on(self, offset: int, start: dict[str, Any] | None) -> Iterator[Any]:
        """Begin a pass at an offset, which may be 0: it is the recorded pass all the same."""
        if start is None or self._attribute is None:
            return self.iterate(offset)
        self._replay = (start, offset)
        return iter(self.loader)

    def run(self, inner: Iterable[Any]) -> Iterator[Any]:
        """Iterate over a sampler; a recorded pass at offset 0 has to draw its order before the state is put back."""
        if self._replay is None or self._replay[1] > 0:
            yield from super().run(inner)
            return
        (start, _), self._replay = self._replay, None
        outside = collect_rng_state()
        restore_rng_state(start)
        for generator, state in zip(_generators(*self._owners(inner)), start["generators"], strict=True):
            generator.set_state(state)
        indices = super().run(inner)
        first = list(islice(indices, 1))
        restore_rng_state(outside)
        yield from first
        yield from indices


class Orders:
    """The order of several loaders over one epoch, to be used like the `Order` of one.

    Args:
        loader: The loaders.
        limits: Batches to take of each where they come one after the other.
    """

    def __init__(self, loader: CombinedLoader, limits: Sequence[int | float] | None = None) -> None:
        self.loader, self.limits = loader, limits
        leaves = loader.flattened
        self.parts = [_Part(leaf, sum(other is leaf for other in leaves) == 1) for leaf in leaves]
        self._given = 0

    @property
    def start(self) -> list[dict[str, Any] | None]:
        """For each loader, where its current pass began and the recorded start; None before it began."""
        return [None if part.at is None else {"at": part.at, "start": part.start} for part in self.parts]

    def attach(self) -> None:
        """Observe the samplers of all loaders. `detach` puts everything back."""
        for part in self.parts:
            part.attach()

    def detach(self) -> None:
        """Give the loaders their own samplers back."""
        for part in self.parts:
            part.detach()

    def iterate(self, position: int = 0, start: Any = None) -> Iterator[Any]:
        """Begin an epoch.

        Args:
            position: How many items were consumed already.
            start: What `start` held when they were; anything that does not fit these loaders is not used.
        """
        for part in self.parts:
            part.at = None
        if position and self._fits(start, position):
            self._given = position
            return self._counted(self._go_on(position, start))
        self._given = 0
        batches = self._counted(self._fresh())
        for _ in range(position):
            next(batches, None)
        return batches

    def _fits(self, start: Any, position: int) -> bool:
        if not isinstance(start, list) or len(start) != len(self.parts):
            return False
        begun = [entry["at"] for entry in start if entry is not None]
        complete = self.loader.mode == "sequential" or len(begun) == len(start)
        return bool(begun) and complete and max(begun) <= position

    def _begin(self, index: int) -> Iterator[Any]:
        part = self.parts[index]
        part.at = self._given
        return part.iterate()

    def _counted(self, items: Iterator[Item]) -> Iterator[Any]:
        for batch, _, _ in items:
            self._given += 1
            yield batch

    def _fresh(self) -> Iterator[Item]:
        if self.loader.mode == "sequential":
            return self.loader.one_by_one(self._begin, self._begin(0), self.limits)
        return self.loader.in_step(self._begin, [self._begin(i) for i in range(len(self.parts))])

    def _go_on(self, position: int, start: list[dict[str, Any] | None]) -> Iterator[Item]:
        for part, entry in zip(self.parts, start, strict=True):
            if entry is not None:
                part.at, part.start = entry["at"], entry["start"]
        if self.loader.mode == "sequential":
            index = max(i for i, part in enumerate(self.parts) if part.at is not None)
            offset = position - (self.parts[index].at or 0)
            batches = self.parts[index].go_on(offset, self.parts[index].start)
            return self.loader.one_by_one(self._begin, batches, self.limits, index, offset)
        passes = [part.go_on(position - (part.at or 0), part.start) for part in self.parts]
        # a pass that did not begin with the epoch is a further one
        return self.loader.in_step(self._begin, passes, [bool(part.at) for part in self.parts], position)
