# SPDX-License-Identifier: Apache-2.0
"""What is probably a mistake in a loader, said once."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from leyden.core.data.source import leaves
from leyden.core.errors import PossibleUserWarning, warn


def advise(loaders: Any, kind: str) -> None:
    """Warn of a loader that shuffles where results are measured, and of a length that workers may not keep to.

    Args:
        loaders: One loader, a collection of them, or a `CombinedLoader`.
        kind: What they are for: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
    """
    for loader in leaves(loaders):
        _advise(loader, kind)


def _advise(loader: Any, kind: str) -> None:
    if not isinstance(loader, DataLoader):
        return
    if isinstance(loader.dataset, IterableDataset):
        if hasattr(loader.dataset, "__len__"):
            warn(
                "LY-D001",
                "Your `IterableDataset` has `__len__` defined. In combination with multi-process data loading (when"
                " num_workers > 1), `__len__` could be inaccurate if each worker is not configured independently to"
                " avoid having duplicate data.",
                PossibleUserWarning,
            )
    elif kind in ("val", "test") and isinstance(loader.sampler, RandomSampler):
        warn(
            "LY-D002",
            f"Your `{kind}_dataloader`'s sampler has shuffling enabled, it is strongly recommended that you turn"
            " shuffling off for val/test dataloaders.",
            PossibleUserWarning,
        )
