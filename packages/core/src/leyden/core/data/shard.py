# SPDX-License-Identifier: Apache-2.0
"""Which of a loader's batches are one process's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, TypeVar

from leyden.core.errors import MisconfigurationValueError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One process's share of the batches: of every ``world`` in a row, the one at its rank.

    So the batches that all processes work on at a step are the next ones of the order that one process would see.

    Attributes:
        rank: Number of the process, from 0.
        world: How many processes share.
        uneven: What becomes of a last round that is not full: ``"stop"`` leaves it out, ``"pad"`` fills it with batches
            from the beginning.

    Raises:
        MisconfigurationValueError: The rank is none of the world's, or ``uneven`` is unknown.

    Examples:
        >>> from leyden.core.data.shard import Shard
        >>> list(Shard(1, 2).take(iter("abcde"))), list(Shard(1, 2, "pad").take(iter("abcde")))
        (['b', 'd'], ['b', 'd', 'a'])
    """

    rank: int
    world: int
    uneven: Literal["stop", "pad"] = "stop"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise MisconfigurationValueError(f"`rank` must be from 0 to {self.world - 1}; got {self.rank}.")
        if self.uneven not in ("stop", "pad"):
            raise MisconfigurationValueError(f"`uneven` must be 'stop' or 'pad'; got {self.uneven!r}.")

    def count(self, batches: int) -> int:
        """Return how many of so many batches are this process's: the same number for all."""
        return batches // self.world if self.uneven == "stop" else -(-batches // self.world)

    def take(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield this process's batches."""
        first: list[T] = []
        while turn := list(islice(batches, self.world)):
            first = first or turn
            missing = self.world - len(turn)
            if missing and self.uneven == "stop":
                return
            turn += islice(cycle(first), missing)
            yield turn[self.rank]
