# SPDX-License-Identifier: Apache-2.0
"""What `Fabric.setup_dataloaders` gives back: a process's own batches, on its device, and where they stand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from leyden.core.data.ahead import DeviceCopies, streams_of
from leyden.core.data.evaluation_share import EvaluationShare
from leyden.core.data.feed import Feed
from leyden.core.data.rounds import Rounds, maximum_over
from leyden.core.data.shard import Shard
from leyden.core.strategies.strategy import Strategy
from leyden.core.transfer import move_to_device


def sharing(strategy: Strategy, evaluation: bool) -> dict[str, Any]:
    """Return what makes a feed one process's share: nothing with one process.

    Args:
        strategy: What knows the processes.
        evaluation: Whether results are measured on the batches, so that each sample counts once.
    """
    rank, world = strategy.global_rank, strategy.world_size
    if world == 1:
        return {}
    agree, maximum = strategy.broadcast, maximum_over(strategy.side_group)
    if not evaluation:
        return {"shard": Shard(rank, world), "agree": agree, "rounds": Rounds(maximum)}
    if strategy.sharded:
        return {"shard": EvaluationShare(rank, world, "pad"), "agree": agree, "rounds": Rounds(maximum, "pad", True)}
    return {"shard": EvaluationShare(rank, world), "agree": agree}


class _FabricDataLoader:
    """A loader that gives the batches of this process, on its device; otherwise the loader itself.

    Its state says where the pass stands, so that a pass that was cut short goes on with the batch after the last one.

    Args:
        dataloader: The loader, which stays as it is.
        device: Where batches go; None for where they are.
        share: What makes the batches one process's share, as `sharing` returns it.
    """

    def __init__(
        self,
        dataloader: DataLoader[Any],
        device: torch.device | None = None,
        share: dict[str, Any] | None = None,
    ) -> None:
        self._dataloader, self._device = dataloader, device
        self._feed = Feed(copy.copy(dataloader), 1.0, "limit", _mover(device), **(share or {}))
        # so that the beginning of each pass is known
        self._feed.order.attach()
        self._next = self._current = self._position = 0
        self._loaded: dict[str, Any] | None = None

    @property
    def loader(self) -> DataLoader[Any]:
        """The loader as the user made it."""
        return self._dataloader

    @property
    def device(self) -> torch.device | None:
        """Where batches go; None for where they are."""
        return self._device

    def __len__(self) -> int:
        length = self._feed.length
        return len(self._dataloader) if length is None else length

    def __iter__(self) -> Iterator[Any]:
        begin, self._loaded = self._loaded or {"pass": self._next, "position": 0, "start": None}, None
        self._current, self._position = begin["pass"], begin["position"]
        self._next = self._current + 1
        self._feed.set_epoch(self._current)
        for batch in self._feed.batches(self._position, begin["start"]):
            self._position += 1
            yield batch
        self._current, self._position = self._next, 0

    def state_dict(self) -> dict[str, Any]:
        """Return which pass runs or comes next, and where it stands."""
        if self._loaded is not None:
            return dict(self._loaded)
        start = self._feed.order.place(self._position) if self._position else None
        return {"pass": self._current, "position": self._position, "start": start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next pass go on where the state was taken."""
        self._loaded = {name: state_dict[name] for name in ("pass", "position", "start")}

    def __getattr__(self, name: str) -> Any:
        if name == "_dataloader":
            raise AttributeError(name)
        return getattr(self._dataloader, name)


def _mover(device: torch.device | None) -> Callable[[Any], Any] | None:
    if device is None or device.type == "cpu":
        return None
    streams = streams_of(device)
    return partial(move_to_device, device=device) if streams is None else DeviceCopies(device, streams)
