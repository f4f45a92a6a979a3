# SPDX-License-Identifier: Apache-2.0
"""Feed: the batches of one loader, counted, limited, at a position, and on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from leyden.core.data.order import Order
from leyden.core.errors import MisconfigurationException


def sized_length(loader: Any) -> int | None:
    """Return the number of batches of a loader, or None if it does not say or can not be trusted."""
    if (
        isinstance(loader, DataLoader)
        and isinstance(loader.dataset, IterableDataset)
        and not hasattr(loader.dataset, "__len__")
    ):
        return None
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


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
            f"When using an `IterableDataset` or a loader without a length, `Trainer({flag})` must be `1.0` or an"
            f" int; got {limit}."
        )
    count = int(length * limit)
    if count == 0 and length > 0:
        raise MisconfigurationException(
            f"You requested to check {limit} of the dataloader but {limit} * {length} < 1. Please increase the"
            f" `{flag}` argument."
            f" Try at least `{flag}={1 / length}`"
        )
    return count


class Feed:
    """The batches of one loader.

    Args:
        loader: Any iterable of batches.
        limit: How many batches: an int, or a fraction as a float.
        flag: Name of the flag that holds ``limit``.
        prepare: Brings a batch to its device, or None if there is nothing to do.
        name: Name of the loader, where loaders come in a dict.

    Attributes:
        length: Batches per pass, or None if unknown.
        is_last: Whether the batch that was just given is the last one.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        limit: float | int,
        flag: str,
        prepare: Callable[[Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.loader, self.prepare, self.name = loader, prepare, name
        self.length = limited(sized_length(loader), limit, flag)
        self.sized = sized_length(loader) is not None
        self.order = Order(loader)
        self.is_last = False

    def batches(self, position: int = 0, start: dict[str, Any] | None = None) -> Iterator[Any]:
        """Begin a pass; the loader's iterator exists when this returns, the first batch is fetched later.

        Args:
            position: Batches consumed already.
            start: The recorded start of the order, to go on in the middle exactly.
        """
        self.is_last = False
        if self.length is not None and self.length <= position:
            return iter(())
        return (
            self._sized(self.order.iterate(position, start), position)
            if self.sized
            else self._ahead(self.order.iterate(position, start), position)
        )

    def _sized(self, source: Iterator[Any], position: int) -> Iterator[Any]:
        prepare, length = self.prepare, self.length
        assert length is not None
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
