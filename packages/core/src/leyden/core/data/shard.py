# SPDX-License-Identifier: Apache-2.0
"""Which of a loader's batches are one process's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal, Protocol, TypeVar

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from leyden.core.errors import MisconfigurationValueError

T = TypeVar("T")
Uneven = Literal["stop", "pad", "join"]


class Share(Protocol):
    """One process's share of what a sampler of batches draws."""

    @property
    def uneven(self) -> Uneven:
        """What becomes of batches that do not go round."""

    def length(self, sampler: Any) -> int:
        """Return how many batches of a sampler are this process's."""

    def batches(self, sampler: Any) -> Iterator[Any]:
        """Draw from a sampler the batches that are this process's."""


def can_be_shared(loader: Any) -> bool:
    """Tell whether a loader's samples can be dealt out to processes: it draws their indices, and for all of them.

    A data set that is only iterated over deals itself out, or is whole on every process; so does a sampler that knows
    how many processes there are.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    return distributed_sampler(loader) is None


def distributed_sampler(loader: Any) -> Any:
    """Return the sampler of a loader that draws the indices of one process only, or None."""
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
        if hasattr(sampler, "num_replicas") and hasattr(sampler, "rank"):
            return sampler
    return None


def piece(samples: int, rank: int, world: int) -> tuple[int, int]:
    """Return where a process's piece of so many samples begins and ends; pieces differ by one sample at most."""
    small, larger = divmod(samples, world)
    begin = rank * small + min(rank, larger)
    return begin, begin + small + (rank < larger)


@dataclass(frozen=True)
class Shard:
    """One process's share of the batches: of every ``world`` in a row, the one at its rank.

    So the batches that all processes work on at a step are the next ones of the order that one process would see. The
    samples of a last round that is not full are dealt out evenly, or left out if the loader drops what fills no batch.

    Attributes:
        rank: Number of the process, from 0.
        world: How many processes share.
        uneven: What becomes of a last round that can not be dealt out evenly, because there are fewer samples than
            processes or a batch sampler of the user's own makes the batches: ``"stop"`` leaves it out, ``"pad"`` fills
            it from the beginning, ``"join"`` gives it to some of the processes.

    Raises:
        MisconfigurationValueError: The rank is none of the world's, or ``uneven`` is unknown.

    Examples:
        >>> from torch.utils.data import BatchSampler
        >>> from leyden.core.data.shard import Shard
        >>> [list(Shard(rank, 2).batches(BatchSampler(range(10), 3, False))) for rank in range(2)]
        [[[0, 1, 2], [6, 7]], [[3, 4, 5], [8, 9]]]
        >>> list(Shard(1, 2).take(iter("abcde"))), list(Shard(1, 2, "pad").take(iter("abcde")))
        (['b', 'd'], ['b', 'd', 'a'])
    """

    rank: int
    world: int
    uneven: Uneven = "stop"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise MisconfigurationValueError(f"`rank` must be from 0 to {self.world - 1}; got {self.rank}.")
        if self.uneven not in ("stop", "pad", "join"):
            raise MisconfigurationValueError(f"`uneven` must be 'stop', 'pad' or 'join'; got {self.uneven!r}.")

    def count(self, batches: int) -> int:
        """Return how many of so many whole batches are this process's: as many for all, but for ``"join"``."""
        full, rest = divmod(batches, self.world)
        return full + self._takes_of(rest)

    def take(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield this process's of whole batches."""
        first: list[T] = []
        while turn := list(islice(batches, self.world)):
            first = first or turn
            if len(turn) == self.world or self._takes_of(len(turn)):
                yield next(islice(self._filled(turn, first), self.rank, None))

    def length(self, sampler: Any) -> int:
        """Return how many batches of a sampler are this process's."""
        # a derived class may put anything together in a batch
        if type(sampler) is not BatchSampler:
            return self._for(sampler).count(len(sampler))
        samples: Any = sampler.sampler
        full, rest = divmod(len(samples), sampler.batch_size * self.world)
        return full + (not sampler.drop_last and self._takes_of(rest))

    def batches(self, sampler: Any) -> Iterator[Any]:
        """Draw from a sampler the batches that are this process's."""
        if type(sampler) is not BatchSampler:
            yield from self._for(sampler).take(iter(sampler))
            return
        size, indices = sampler.batch_size, iter(sampler.sampler)
        first: list[Any] = []
        while len(turn := list(islice(indices, size * self.world))) == size * self.world:
            first = first or turn
            yield turn[self.rank * size : (self.rank + 1) * size]
        if not sampler.drop_last and self._takes_of(len(turn)):
            samples = list(self._filled(turn, first or turn))
            begin, end = piece(len(samples), self.rank, self.world)
            yield samples[begin:end]

    def _takes_of(self, rest: int) -> bool:
        """Tell whether this process takes something of so many things that may not go round."""
        return rest > {"stop": self.world - 1, "pad": 0, "join": self.rank}[self.uneven]

    def _filled(self, turn: list[T], first: list[T]) -> Iterator[T]:
        yield from turn
        if self.uneven == "pad":
            yield from islice(cycle(first), max(self.world - len(turn), 0))

    def _for(self, sampler: Any) -> Shard:
        drops = self.uneven == "pad" and getattr(sampler, "drop_last", False)
        return Shard(self.rank, self.world) if drops else self
