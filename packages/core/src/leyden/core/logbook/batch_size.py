# SPDX-License-Identifier: Apache-2.0
"""How many samples a batch holds: read once off the first tensor found, then along the same path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from leyden.core.errors import MisconfigurationException, PossibleUserWarning, warn

Path = tuple[Any, ...]


def _tensors(batch: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if isinstance(batch, Tensor):
        yield path, batch.size(0) if batch.ndim else 1
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, (*path, key))
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from _tensors(getattr(batch, field.name), (*path, field.name))
    elif isinstance(batch, Iterable) and not isinstance(batch, (str, bytes)):  # the length of a text is no batch size
        for index, value in enumerate(batch):
            yield from _tensors(value, (*path, index))


class BatchSize:
    """Infers the size of batches of one loop."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def of(self, batch: Any) -> int:
        """Return the number of samples in ``batch``.

        Raises:
            MisconfigurationException: No tensor is found in the batch.
        """
        if isinstance(batch, Tensor):
            return batch.size(0) if batch.ndim else 1
        if self._path is not None:
            found = batch
            try:
                for key in self._path:
                    found = found[key]
                if isinstance(found, Tensor):
                    return found.size(0) if found.ndim else 1
            except (KeyError, IndexError, TypeError):
                pass
        return self._search(batch)

    def _search(self, batch: Any) -> int:
        sizes = list(_tensors(batch))
        if not sizes:
            raise MisconfigurationException(
                "We could not infer the batch_size from the batch. Either simplify its structure or provide the"
                " batch_size as `self.log(..., batch_size=batch_size)`."
            )
        self._path, size = sizes[0]
        if any(other != size for _, other in sizes):
            where = "".join(f"[{key!r}]" for key in self._path)
            warn(
                "LY-B002",
                "Trying to infer the `batch_size` from an ambiguous collection. The batch size we found is"
                f" {size} (batch{where}). To avoid any miscalculations, use `self.log(..., batch_size=batch_size)`.",
                PossibleUserWarning,
            )
        return size
