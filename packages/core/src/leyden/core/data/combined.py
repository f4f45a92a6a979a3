# SPDX-License-Identifier: Apache-2.0
"""CombinedLoader: several loaders, in any nesting, iterated as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from math import inf
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset

from leyden.core.errors import MisconfigurationValueError

Mode = Literal["min_size", "max_size_cycle", "max_size", "sequential"]
MODES: tuple[Mode, ...] = ("min_size", "max_size_cycle", "max_size", "sequential")
Item = tuple[Any, int, int]
Begin = Callable[[int], Iterator[Any]]
_OVER = object()


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


def _children(tree: Any) -> list[Any] | None:
    """Return what a collection holds, or None for a loader: also an empty one, and one of numbers and texts."""
    if isinstance(tree, Mapping):
        found = list(tree.values())
    elif isinstance(tree, (list, tuple)):
        found = list(tree)
    else:
        return None
    return None if all(isinstance(child, (int, float, str)) for child in found) else found


def flatten(tree: Any) -> list[Any]:
    """Return the loaders of a nested collection, in order."""
    children = _children(tree)
    return [tree] if children is None else [leaf for child in children for leaf in flatten(child)]


def rebuild(tree: Any, leaves: Iterator[Any]) -> Any:
    """Return a collection of the shape of ``tree`` filled with ``leaves``."""
    if _children(tree) is None:
        return next(leaves)
    if isinstance(tree, Mapping):
        # a copy keeps the type, and the factory of a defaultdict
        filled = copy(tree) if isinstance(tree, MutableMapping) else dict(tree)
        for key, value in tree.items():
            filled[key] = rebuild(value, leaves)
        return filled
    if hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(value, leaves) for value in tree))
    return type(tree)(rebuild(value, leaves) for value in tree)


class CombinedLoader:
    """Several loaders as one: in step with each other, or one after the other.

    Every item is ``(batch, batch_idx, dataloader_idx)``. In step, ``batch`` has the shape of the collection and
    ``dataloader_idx`` is 0; one after the other, ``batch`` is a single loader's and ``batch_idx`` counts from 0 in
    each.

    Args:
        iterables: Loaders in any nesting of dicts, lists and tuples, or a single one. A list of numbers or texts, or
            an empty one, is a loader itself.
        mode: ``"min_size"`` ends with the shortest; ``"max_size_cycle"`` ends with the longest and begins shorter ones
            again; ``"max_size"`` ends with the longest and gives None for those that are over; ``"sequential"`` goes
            through one after the other.

    Attributes:
        iterables: The collection.
        mode: How the loaders are combined.

    Raises:
        MisconfigurationValueError: ``mode`` is unknown.

    Example:
        >>> from leyden.core.data.combined import CombinedLoader
        >>> loader = CombinedLoader({"a": range(3), "b": "xy"}, "max_size_cycle")
        >>> [batch for batch, _, _ in loader]
        [{'a': 0, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}]
    """

    def __init__(self, iterables: Any, mode: Mode = "min_size") -> None:
        if mode not in MODES:
            raise MisconfigurationValueError(f"Unsupported mode {mode!r}; `mode` is one of {', '.join(MODES)}.")
        self.iterables, self.mode = iterables, mode
        self._flattened = flatten(iterables)
        self._limits: list[int | float] | None = None
        self._iterator: Iterator[Item] | None = None

    @property
    def flattened(self) -> list[Any]:
        """The loaders in order; setting as many others puts them into the collection."""
        return self._flattened

    @flattened.setter
    def flattened(self, loaders: list[Any]) -> None:
        self._check_count(loaders, "flattened")
        self.iterables, self._flattened = rebuild(self.iterables, iter(loaders)), loaders

    @property
    def limits(self) -> list[int | float] | None:
        """Batches that count of each loader, or None for all; a single number is for every loader."""
        return self._limits

    @limits.setter
    def limits(self, limits: int | float | list[int | float] | None) -> None:
        if isinstance(limits, (int, float)):
            limits = [limits] * len(self._flattened)
        elif limits is not None:
            self._check_count(limits, "limits")
        self._limits = limits

    def _check_count(self, values: Sequence[Any], name: str) -> None:
        if len(values) != len(self._flattened):
            raise MisconfigurationValueError(
                f"Mismatch: `{name}` got {len(values)} values for {len(self._flattened)} loaders; give one for each."
            )

    @property
    def sampler(self) -> Any:
        """The samplers, in the shape of the collection; None for a loader without one."""
        return self._of_each("sampler")

    @property
    def batch_sampler(self) -> Any:
        """The batch samplers, in the shape of the collection; None for a loader without one."""
        return self._of_each("batch_sampler")

    def _of_each(self, name: str) -> Any:
        return rebuild(self.iterables, (getattr(loader, name, None) for loader in self._flattened))

    def length(self, limits: Sequence[int | float] | None = None) -> int | None:
        """Return the number of items under ``limits``, or None if it is not known."""
        sizes = [inf if (n := sized_length(loader)) is None else n for loader in self._flattened]
        counted = sizes if limits is None else [min(pair) for pair in zip(sizes, limits, strict=True)]
        total = sum(counted) if self.mode == "sequential" else (min if self.mode == "min_size" else max)(counted)
        return None if total == inf else int(total)

    def __len__(self) -> int:
        if self._iterator is None:
            raise RuntimeError("A CombinedLoader has a length once it began: call `iter(combined_loader)` before.")
        length = self.length(self._limits)
        if length is None:
            raise TypeError(f"The length is not known in mode {self.mode!r}: a loader has none. Set `limits`.")
        return length

    def __iter__(self) -> CombinedLoader:
        def begin(index: int) -> Iterator[Any]:
            return iter(self._flattened[index])

        if self.mode == "sequential":
            self._iterator = self.one_by_one(begin, begin(0), self._limits)
        else:
            self._iterator = self.in_step(begin, [begin(i) for i in range(len(self._flattened))])
        return self

    def __next__(self) -> Item:
        if self._iterator is None:
            raise RuntimeError("A CombinedLoader gives items once it began: call `iter(combined_loader)` before.")
        return next(self._iterator)

    def one_by_one(
        self,
        begin: Begin,
        batches: Iterator[Any],
        limits: Sequence[int | float] | None = None,
        index: int = 0,
        given: int = 0,
    ) -> Iterator[Item]:
        """Go through one loader after the other.

        Args:
            begin: Begins a pass of the loader with this index.
            batches: The pass of the first loader.
            limits: Batches to take of each loader.
            index: Which loader is first.
            given: Batches of that loader that were given already.
        """
        while True:
            limit = inf if limits is None else limits[index]
            while given < limit and (batch := next(batches, _OVER)) is not _OVER:
                yield batch, given, index
                given += 1
            index, given = index + 1, 0
            if index == len(self._flattened):
                return
            batches = begin(index)

    def in_step(
        self, begin: Begin, passes: list[Iterator[Any]], ended: Iterable[bool] = (), batch_idx: int = 0
    ) -> Iterator[Item]:
        """Take a batch of every loader at a time.

        Args:
            begin: Begins another pass of the loader with this index.
            passes: The current pass of every loader.
            ended: Whether each loader has ended before.
            batch_idx: Items that were given already.
        """
        over = list(ended) or [False] * len(passes)
        while True:
            batches: list[Any] = []
            for index in range(len(passes)):
                batch = next(passes[index], _OVER)
                if batch is _OVER:
                    over[index] = True
                    if self.mode == "min_size" or all(over):
                        return
                    batch = None
                    if self.mode == "max_size_cycle":
                        passes[index] = begin(index)
                        batch = next(passes[index], _OVER)
                        if batch is _OVER:
                            return
                batches.append(batch)
            yield rebuild(self.iterables, iter(batches)), batch_idx, 0
            batch_idx += 1

    def reset(self) -> None:
        """Forget the iteration that is under way and end the workers of the loaders."""
        self._iterator = None
        for loader in self._flattened:
            workers = getattr(loader, "_iterator", None)
            if isinstance(loader, DataLoader) and workers is not None:
                # the only way to end persistent workers before their loader is collected
                workers._shutdown_workers()
                loader._iterator = None
