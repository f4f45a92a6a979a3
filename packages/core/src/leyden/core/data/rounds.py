# SPDX-License-Identifier: Apache-2.0
"""Processes whose data end at different times: nobody begins a step that another has no batch for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from leyden.core.data.combined import sized_length
from leyden.core.data.shard import Uneven, can_be_shared, distributed_sampler
from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, PossibleUserWarning, warn

T = TypeVar("T")
_OVER: Any = object()


class _Rest:
    """What a process gets in a round for which it has no batch."""

    def __repr__(self) -> str:
        return "REST"


REST: Any = _Rest()


class Pending(Protocol):
    """A collective that was begun."""

    def wait(self) -> Any:
        """Wait for its end."""


Begin = Callable[[Tensor], Pending]


def maximum_over(group: Any = None) -> Begin:
    """Return what begins to replace a tensor by its maximum over the processes of a group.

    Args:
        group: A process group for tensors on the CPU; None for the one of all processes.
    """
    return partial(dist.all_reduce, op=dist.ReduceOp.MAX, group=group, async_op=True)


def may_be_uneven(loader: Any) -> bool:
    """Tell whether nothing keeps the batches of a loader equally many on all processes."""
    return not can_be_shared(loader) and distributed_sampler(loader) is None


def tells_its_length(loader: Any) -> bool:
    """Tell whether a loader knows how many batches it has; one over a data set that is iterated over only guesses."""
    guesses = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
    return not guesses and sized_length(loader) is not None


class Rounds:
    """Rounds of batches, one per process, that all processes agree on.

    Where every process knows how many batches it has, they agree once for a pass. Otherwise what they tell each other
    of a round is underway during the step before it, so that nobody waits for it; two batches are fetched ahead for
    that.

    Args:
        maximum: Begins to replace a tensor on the CPU by its maximum over all processes, such as `maximum_over` makes.
        uneven: ``"stop"`` ends all processes' batches where the first has none, ``"pad"`` and ``"join"`` where the last
            has none: until then a process repeats its own, or gets `REST`.
        measures: Whether results are measured on the batches, so that repeated ones are worth a warning.

    Raises:
        MisconfigurationValueError: ``uneven`` is none of these.
    """

    def __init__(self, maximum: Begin, uneven: Uneven = "stop", measures: bool = False) -> None:
        if uneven not in ("stop", "pad", "join"):
            raise MisconfigurationValueError(f"`uneven` must be 'stop', 'pad' or 'join'; got {uneven!r}.")
        self._maximum, self._uneven, self._measures = maximum, uneven, measures

    @property
    def joins(self) -> bool:
        """Whether a process may have no batch for a round."""
        return self._uneven == "join"

    def agreed(self, count: int | None) -> int | None:
        """Return how many rounds there will be, or None if some process does not know how many batches it has.

        Args:
            count: How many this process has; None if that is not known.

        Raises:
            MisconfigurationException: On all processes, if batches are to be repeated and some process has none.
        """
        flags = torch.tensor([count or 0, -(count or 0), count is None], dtype=torch.int64)
        self._maximum(flags).wait()
        most, least, unknown = flags.tolist()
        if unknown:
            return None
        if self._uneven == "stop":
            return -int(least)
        if self._uneven == "pad" and most and not least:
            raise _nothing_to_repeat()
        return int(most)

    def counted(
        self, batches: Iterator[T], again: Callable[[], Iterator[T]], count: int, total: int
    ) -> Iterator[tuple[T, bool]]:
        """Yield this process's batch of every round, and whether the round is the last one; as `over`.

        Args:
            batches: This process's own batches.
            again: Begins them anew.
            count: How many they are.
            total: How many rounds were agreed on.

        Raises:
            MisconfigurationException: There are fewer batches than ``count``.
        """
        own = _Own(batches, again, self._uneven == "pad")
        for index in range(total):
            batch = own.next() if index < count else _OVER
            if batch is _OVER and index < count:
                raise MisconfigurationException(
                    f"A loader that said it had {count} batches had {index}, and the other processes would wait for"
                    " the rest. Let its `__len__` tell the truth, or remove it."
                )
            if batch is _OVER:
                batch = self._replacement(own)
            yield batch, index == total - 1

    def over(self, batches: Iterator[T], again: Callable[[], Iterator[T]]) -> Iterator[tuple[T, bool]]:
        """Yield this process's batch of every round, and whether the round is the last one.

        Args:
            batches: This process's own batches.
            again: Begins them anew.

        Raises:
            MisconfigurationException: Batches are to be repeated, and some process has none at all.
        """
        own = _Own(batches, again, self._uneven == "pad")
        ahead: deque[tuple[Any, Tensor, Pending]] = deque()
        try:
            ahead.append(self._announce(own))
            ahead.append(self._announce(own))
            comes = self._comes(ahead[0])
            while comes:
                batch = ahead.popleft()[0]
                if batch is _OVER:
                    batch = self._replacement(own)
                ahead.append(self._announce(own))
                comes = self._comes(ahead[0])
                yield batch, not comes
        finally:
            # one that nobody waits for would outlive the group; of what broke a process there is better news
            for _, _, pending in ahead:
                with suppress(RuntimeError):
                    pending.wait()

    def _announce(self, own: _Own[T]) -> tuple[Any, Tensor, Pending]:
        batch = own.next()
        flags = torch.tensor([batch is not _OVER, batch is _OVER, own.stuck], dtype=torch.uint8)
        return batch, flags, self._maximum(flags)

    def _comes(self, announced: tuple[Any, Tensor, Pending]) -> bool:
        _, flags, pending = announced
        pending.wait()
        some_have, some_lack, stuck = flags.tolist()
        if self._uneven == "stop":
            return not some_lack
        if some_have and stuck:
            raise _nothing_to_repeat()
        return bool(some_have)

    def _replacement(self, own: _Own[T]) -> Any:
        """Return what a process gets that has no batch of its own for a round."""
        if self.joins:
            return REST
        if self._measures:
            warn(
                "LY-D006",
                "Processes have different numbers of evaluation batches, and `uneven='pad'` makes the results hold"
                " some samples more than once.",
                PossibleUserWarning,
                stacklevel=2,
            )
        return own.repeated()


def _nothing_to_repeat() -> MisconfigurationException:
    return MisconfigurationException(
        "With `uneven='pad'` a process without batches repeats its own, and some process has none at all. Give every"
        " process data, or set `uneven='stop'`."
    )


class _Own(Generic[T]):
    """One process's batches, and what it repeats after them.

    Attributes:
        stuck: Whether there is nothing to repeat.
    """

    def __init__(self, batches: Iterator[T], again: Callable[[], Iterator[T]], repeats: bool) -> None:
        self._batches, self._again, self._repeats = batches, again, repeats
        self._last: Any = _OVER
        self._further: Iterator[T] | None = None
        self._over = self.stuck = False

    def next(self) -> Any:
        """Return the next batch, or `_OVER`."""
        batch = _OVER if self._over else next(self._batches, _OVER)
        if batch is not _OVER:
            self._last = batch
        elif not self._over:
            self._over = True
            if self._repeats and self._last is _OVER:
                # a pass that goes on at its end has had batches before
                self._last = next(self._again(), _OVER)
                self.stuck = self._last is _OVER
        return batch

    def repeated(self) -> T:
        """Return a batch again: from the first on, and the last one where the batches can be had only once."""
        batch = _OVER if self._further is None else next(self._further, _OVER)
        if batch is _OVER:
            self._further = self._again()
            batch = next(self._further, _OVER)
        found: T = self._last if batch is _OVER else batch
        return found
