# SPDX-License-Identifier: Apache-2.0
"""A loader that gives its data in the order of the data set, for overfitting the same batches again and again."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from leyden.core.data.combined import CombinedLoader, flatten, rebuild
from leyden.core.data.shard import distributed_sampler
from leyden.core.data.source import is_collection
from leyden.core.errors import PossibleUserWarning, warn


def unshuffled(loaders: Any, kind: str = "train") -> Any:
    """Return loaders in which copies that go through the data set in order stand for those that shuffle.

    Args:
        loaders: One loader, a collection of them, or a `CombinedLoader`.
        kind: What they are for, to be named in the warning.
    """
    if isinstance(loaders, CombinedLoader):
        combined = copy.copy(loaders)
        combined.flattened = [_unshuffled(leaf, kind) for leaf in loaders.flattened]
        return combined
    return (
        rebuild(loaders, (_unshuffled(leaf, kind) for leaf in flatten(loaders)))
        if is_collection(loaders)
        else (_unshuffled(loaders, kind))
    )


def _unshuffled(loader: Any, kind: str) -> Any:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    distributed = distributed_sampler(loader)
    if isinstance(loader.sampler, SequentialSampler) or not getattr(distributed, "shuffle", distributed is None):
        return loader
    warn(
        "LY-T004",
        f"You requested to overfit but enabled {kind} dataloader shuffling. We are turning off the {kind} dataloader"
        " shuffling for you.",
        PossibleUserWarning,
    )
    plain = copy.copy(loader)
    sampler: Any = SequentialSampler(loader.dataset)  # type: ignore[arg-type]
    if distributed is loader.sampler:
        # the copy goes on to draw for one process only
        sampler = copy.copy(distributed)
        sampler.shuffle = False
    # DataLoader refuses plain assignment of its samplers once it is built
    object.__setattr__(plain, "sampler", sampler)
    if loader.batch_size is not None:
        object.__setattr__(plain, "batch_sampler", BatchSampler(sampler, loader.batch_size, loader.drop_last))
    return plain
