# SPDX-License-Identifier: Apache-2.0
"""Which samples one process evaluates: each sample of a loader is some process's, and no other's."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler

from leyden.core.data.shard import Shard, Uneven, piece
from leyden.core.errors import PossibleUserWarning, warn


class EvaluationShare:
    """One process's share of the samples that results are measured on: a part of the loader's order in one piece.

    The parts differ by one sample at most, no sample is in two, and all have equally many batches, so that what all
    processes must do together in a step never waits for one that is done: a part that would be one batch short has its
    last batch halved. Samples that ``drop_last`` leaves out are those that one process would leave out.

    Where the numbers can not be equal (fewer samples than processes, batches of one sample that do not go round, batch
    samplers of the user's own, loaders without batches) ``uneven`` decides.

    Args:
        rank: Number of the process, from 0.
        world: How many processes share.
        uneven: ``"join"`` keeps to each sample once, and some processes have one batch less; ``"pad"`` repeats batches
            and ``"stop"`` leaves some out, and both say so.

    Raises:
        MisconfigurationValueError: The rank is none of the world's, or ``uneven`` is unknown.

    Examples:
        >>> from torch.utils.data import BatchSampler
        >>> from leyden.core.data.evaluation_share import EvaluationShare
        >>> [list(EvaluationShare(rank, 2).batches(BatchSampler(range(5), 2, False))) for rank in range(2)]
        [[[0, 1], [2]], [[3], [4]]]
    """

    def __init__(self, rank: int, world: int, uneven: Uneven = "join") -> None:
        self._shard = Shard(rank, world, uneven)

    @property
    def uneven(self) -> Uneven:
        """What becomes of batches that do not go round."""
        return self._shard.uneven

    def length(self, sampler: Any) -> int:
        """Return how many batches of a sampler's samples are this process's."""
        part = self._part(sampler)
        return self._shard.count(len(sampler)) if part is None else len(part[1])

    def batches(self, sampler: Any) -> Iterator[Any]:
        """Draw from a sampler the samples that are this process's, in batches."""
        part = self._part(sampler)
        if part is None:
            self._say(sampler)
            yield from self._shard.take(iter(sampler))
            return
        begin, sizes = part
        indices = islice(iter(sampler.sampler), begin, begin + sum(sizes))
        for size in sizes:
            yield list(islice(indices, size))

    def _part(self, sampler: Any) -> tuple[int, list[int]] | None:
        """Return where this process's part begins and its batches' sizes; None if only whole batches can be shared."""
        # a derived class may put anything together in a batch
        if type(sampler) is not BatchSampler or not isinstance(sampler.sampler, Sized):
            return None
        samples, size = len(sampler.sampler), sampler.batch_size
        if sampler.drop_last:
            samples -= samples % size
        rank, world = self._shard.rank, self._shard.world
        batches = -(-samples // (size * world))
        if samples // world < batches and self.uneven != "join":
            return None
        begin, end = piece(samples, rank, world)
        return begin, _cut(end - begin, size, batches)

    def _say(self, sampler: Any) -> None:
        if self.uneven == "join" or (hasattr(sampler, "__len__") and len(sampler) % self._shard.world == 0):
            return
        what = "hold some samples more than once" if self.uneven == "pad" else "leave some samples out"
        warn(
            "LY-D004",
            f"The batches of an evaluation loader do not go round {self._shard.world} processes, and"
            f" `uneven={self.uneven!r}` makes the results {what}. With at least as many samples as processes, batches"
            " of more than one sample and no batch sampler of your own, every sample is evaluated exactly once.",
            PossibleUserWarning,
            stacklevel=2,
        )


def _cut(samples: int, size: int, batches: int) -> list[int]:
    """Return sizes of batches for samples that fill as many batches, or one less and then the last one is halved."""
    full, rest = divmod(samples, size)
    sizes = [size] * full + [rest] * (rest > 0)
    if len(sizes) < batches and sizes and size > 1:
        last = sizes.pop()
        sizes += [last - last // 2, last // 2]
    return sizes
