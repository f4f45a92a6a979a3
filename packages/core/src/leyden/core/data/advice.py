# SPDX-License-Identifier: Apache-2.0
"""What is probably a mistake in a loader, said once."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler

from leyden.core.data.feed import Feed
from leyden.core.data.shard import distributed_sampler
from leyden.core.data.source import leaves
from leyden.core.errors import MisconfigurationException, PossibleUserWarning, warn


def advise(loaders: Any, kind: str) -> None:
    """Warn of a loader that shuffles or repeats where results are measured, and of a length workers may not keep to.

    Args:
        loaders: One loader, a collection of them, or a `CombinedLoader`.
        kind: What they are for: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
    """
    for loader in leaves(loaders):
        _advise(loader, kind)


def refuse_replays(feed: Feed) -> None:
    """Refuse loaders with which a resumed run can not go on exactly.

    Raises:
        MisconfigurationException: There is one.
    """
    for order in feed.orders:
        if order.replays:
            raise MisconfigurationException(
                "`Trainer(exact='refuse')` can not go on exactly from the middle of a"
                f" {type(order.loader).__qualname__} without `state_dict` and"
                " `load_state_dict`: give it both (torchdata's StatefulDataLoader has them),"
                " use a map-style data set, or set `exact=True` to load again what it gave before."
            )


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
    elif kind in ("val", "test") and _repeats(distributed_sampler(loader)):
        verb = "validate" if kind == "val" else "test"
        warn(
            "LY-D007",
            f"A `DistributedSampler` of your own in a {kind} dataloader repeats samples to make the processes' numbers"
            f" equal, and `trainer.{verb}()` counts them again. Without it every sample is evaluated exactly once;"
            " otherwise it is recommended to use `Trainer(devices=1, num_nodes=1)` to ensure each sample/batch gets"
            " evaluated exactly once.",
            PossibleUserWarning,
        )
    elif kind in ("val", "test") and isinstance(loader.sampler, RandomSampler):
        warn(
            "LY-D002",
            f"Your `{kind}_dataloader`'s sampler has shuffling enabled, it is strongly recommended that you turn"
            " shuffling off for val/test dataloaders.",
            PossibleUserWarning,
        )


def _repeats(sampler: Any) -> bool:
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return False
    return len(sampler.dataset) % sampler.num_replicas != 0  # type: ignore[arg-type]
