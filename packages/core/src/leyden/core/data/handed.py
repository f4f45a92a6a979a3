# SPDX-License-Identifier: Apache-2.0
"""The iterator that steps get which fetch their batches themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from leyden.core.data.feed import Feed
from leyden.core.errors import MisconfigurationException


class DataLoaderIter:
    """What such a step gets: ``next`` gives ``(batch, batch_idx, dataloader_idx)``, as often in a step as it likes.

    Args:
        feed: Where the batches come from.
        batches: The pass over them that has begun.
        position: Batches consumed before.
        fetched: Called with each batch when it is fetched.
        loader: Number of the loader.

    Attributes:
        batch: The batch that was fetched last, or None.
        batch_idx: Its index in the epoch.
        count: Batches consumed in the epoch.
    """

    def __init__(
        self, feed: Feed, batches: Iterator[Any], position: int, fetched: Callable[[Any], None], loader: int = 0
    ) -> None:
        self._feed, self._batches, self._fetched, self._loader = feed, batches, fetched, loader
        self.batch: Any = None
        self.batch_idx = max(0, position - 1)
        self.count = position

    @property
    def length(self) -> int | None:
        """Batches of the epoch, or None if unknown."""
        return self._feed.length

    def exhausted(self) -> bool:
        """Tell whether the last batch was fetched."""
        return self._feed.is_last or (self._feed.length is not None and self.count >= self._feed.length)

    def __iter__(self) -> DataLoaderIter:
        return self

    def __next__(self) -> tuple[Any, int, int]:
        self.batch = next(self._batches)
        self.batch_idx = self.count
        self.count += 1
        self._fetched(self.batch)
        return self.batch, self.batch_idx, self._loader

    def turns(self) -> Iterator[Any]:
        """Yield the batch that was fetched last, once per step, until the last batch was fetched.

        Raises:
            MisconfigurationException: A step fetched nothing: it would be called for ever.
        """
        while not self.exhausted():
            before = self.count
            yield self.batch
            self.refuse_idle(before)

    def refuse_idle(self, before: int) -> None:
        """Refuse a step that fetched nothing.

        Args:
            before: `count` when the step began.

        Raises:
            MisconfigurationException: It is the same now.
        """
        if self.count == before:
            raise MisconfigurationException(
                "a step that takes `dataloader_iter` fetched no batch: call `next(dataloader_iter)` in it, which gives"
                " `(batch, batch_idx, dataloader_idx)`."
            )
