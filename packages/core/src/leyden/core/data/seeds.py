# SPDX-License-Identifier: Apache-2.0
"""A seed for every batch, so that random transforms do not depend on who fetches a batch, or when.

The seed is a function of where the pass over the data began, of the process and of the batch's place in the pass. It
travels with the indices: a worker seeds its generators when it unpacks them, and without workers they are seeded just
before the fetch.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, get_worker_info
from torch.utils.data import default_collate as _collate

from leyden.core.data import rows

_STORES = (TensorDataset, rows.Rows, list, tuple, range, Tensor, np.ndarray)
Seed = tuple[int, int, int]


def draws_when_fetched(loader: DataLoader[Any]) -> bool:
    """Tell whether fetching a loader's batches may draw random numbers: not where it only picks what is stored."""
    return loader.collate_fn not in (_collate, rows._whole) or not _is_store(loader.dataset)


def _is_store(dataset: Any) -> bool:
    while type(dataset) is Subset:
        dataset = dataset.dataset
    if type(dataset) is ConcatDataset:
        return all(_is_store(part) for part in dataset.datasets)
    return type(dataset) in _STORES


class Seeds:
    """The seeds of the batches of one pass.

    Args:
        start: Where the pass began: the state of torch's generator, and those of the samplers' own.
        rank: Number of the process.

    Examples:
        >>> import torch
        >>> from leyden.core.data.seeds import Seeds
        >>> start = {"torch": torch.get_rng_state(), "generators": []}
        >>> Seeds(start, 0).of(3) == Seeds(start, 0).of(3), Seeds(start, 0).of(3) == Seeds(start, 1).of(3)
        (True, False)
    """

    def __init__(self, start: dict[str, Any], rank: int) -> None:
        digest = hashlib.blake2b(str(rank).encode(), digest_size=32)
        for state in (start["torch"], *start["generators"]):
            digest.update(state.numpy().tobytes() if isinstance(state, Tensor) else repr(state).encode())
        self._key = digest.digest()

    def of(self, batch: int) -> Seed:
        """Return the seeds of torch, Python and NumPy for a batch, by its place in the pass."""
        drawn = hashlib.blake2b(batch.to_bytes(8, "little"), key=self._key, digest_size=20).digest()
        parts = drawn[:8], drawn[8:16], drawn[16:]
        of_torch, of_python, of_numpy = (int.from_bytes(part, "little") for part in parts)
        return of_torch % 2**63, of_python, of_numpy


def seed_generators(seed: Seed) -> None:
    """Seed the generators of the host in this process or worker."""
    torch.default_generator.manual_seed(seed[0])
    random.seed(seed[1])
    np.random.seed(seed[2])


class Sent(list[Any]):
    """Indices on their way to a worker. There they are a plain list, and the worker's generators are seeded."""

    seed: Seed

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _arrived, (list(self), self.seed)


def _arrived(indices: list[Any], seed: Seed) -> list[Any]:
    if get_worker_info() is not None:
        seed_generators(seed)
    return indices


def sent(indices: list[Any], seed: Seed) -> Sent:
    """Return indices that seed the worker that fetches them."""
    package = Sent(indices)
    package.seed = seed
    return package
