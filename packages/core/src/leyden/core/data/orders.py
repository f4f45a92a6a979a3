# SPDX-License-Identifier: Apache-2.0
"""The order of several loaders: where the current pass of each began, and its start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from leyden.core.data.combined import CombinedLoader, Item
from leyden.core.data.order import Order
from leyden.core.data.shard import Share


class _Part(Order):
    """The order of one loader of several; ``at`` is how many items were given when its current pass began."""

    at: int | None = None

    def forget_seeds(self) -> None:
        """Do nothing: other loaders have seeded the generators in between."""


class Orders:
    """The order of several loaders over one epoch, to be used like the `Order` of one.

    Args:
        loader: The loaders.
        shard: The share of each loader's batches that is this process's; None for all of them.
        agree: Returns what it is given in the first process, on all processes; None where each draws for itself.
        rank: Number of this process, to seed every batch; None to leave generators alone.

    Attributes:
        limits: Batches to take of each where they come one after the other; None for all.
        parts: The order of each loader.
    """

    def __init__(
        self,
        loader: CombinedLoader,
        shard: Share | None = None,
        agree: Callable[[Any], Any] | None = None,
        rank: int | None = None,
    ) -> None:
        self.loader, self.agree = loader, agree
        self.limits: Sequence[int | float] | None = None
        self.parts = [_Part(leaf, shard, agree, rank) for leaf in loader.flattened]
        self._given = 0
        self._agreed: dict[int, Any] = {}

    def place(self, position: int) -> list[dict[str, Any] | None]:
        """Return what `iterate` needs to go on at a position, which is that of the items consumed."""
        return [
            None if part.at is None else {"at": part.at, "start": part.place(position - part.at)} for part in self.parts
        ]

    @property
    def start(self) -> list[dict[str, Any] | None]:
        """For each loader, where its current pass began and the recorded start; None before it began."""
        return [None if part.at is None else {"at": part.at, "start": part.start} for part in self.parts]

    @property
    def generators(self) -> list[list[Any]]:
        """For each loader, the states of the generators that its samplers hold."""
        return [part.generators for part in self.parts]

    @generators.setter
    def generators(self, states: list[list[Any]]) -> None:
        for part, each in zip(self.parts, states, strict=False):
            part.generators = each

    def pass_over(self, start: Any, generators: list[Any]) -> None:
        """Stand where all passes were over."""
        self.generators = generators

    def forget_seeds(self) -> None:
        """Do nothing: the seeds of several loaders can not be told apart."""

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
        if self._fits(start, position):
            self._given = position
            return self._counted(self._go_on(position, start))
        self._given = 0
        self._agree()
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

    def _agree(self) -> None:
        """Agree on where the first pass of every loader begins: when others begin, a process may be alone."""
        agreeing = [index for index, part in enumerate(self.parts) if part.agrees]
        if self.agree is not None and agreeing:
            self._agreed = self.agree({index: self.parts[index].own_start() for index in agreeing})

    def _begin(self, index: int) -> Iterator[Any]:
        part = self.parts[index]
        part.at = self._given
        agreed = self._agreed.pop(index, None)
        return part.begin() if agreed is None else part.go_on(0, agreed)

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
