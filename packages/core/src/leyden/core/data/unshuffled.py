# SPDX-License-Identifier: Apache-2.0
"""A loader that gives its data in the order of the data set, for overfitting the same batches again and again."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from leyden.core.errors import PossibleUserWarning, warn


def unshuffled(loader: Any) -> Any:
    """Return a copy of a shuffling loader that goes through the data set in order; anything else as it is."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    if isinstance(loader.sampler, SequentialSampler):
        return loader
    warn(
        "LY-T004",
        "You requested to overfit but enabled training dataloader shuffling. We are turning off the training dataloader"
        " shuffling for you.",
        PossibleUserWarning,
    )
    plain = copy.copy(loader)
    sampler = SequentialSampler(loader.dataset)  # type: ignore[arg-type]
    # DataLoader refuses plain assignment of its samplers once it is built
    object.__setattr__(plain, "sampler", sampler)
    if loader.batch_size is not None:
        object.__setattr__(plain, "batch_sampler", BatchSampler(sampler, loader.batch_size, loader.drop_last))
    return plain
