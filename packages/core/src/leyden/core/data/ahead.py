# SPDX-License-Identifier: Apache-2.0
"""Copying batches to an accelerator beside the running step, in a stream of their own.

The host runs ahead of the device, so the copy of a batch begins while the device still computes the step before, even
where the batch is fetched only when it is asked for. Loaders with workers go further: their next batch is fetched and
its copy begun before the step of the current one, so that the copies overlap also where a step waits for its device.
Without workers that would draw the random numbers of a batch before those of the step ahead of it, and a resumed run
would not see the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from leyden.core.transfer import move_to_device

_OVER = object()


def streams_of(device: torch.device) -> Any:
    """Return the module of a device that has streams to copy in, or None where copies have to wait in line."""
    if device.type == "cpu":
        return None
    module = getattr(torch, device.type, None)
    return module if all(hasattr(module, name) for name in ("Stream", "stream", "current_stream")) else None


def has_workers(loader: Any) -> bool:
    """Tell whether every loader of a collection loads in processes of its own."""
    leaves = getattr(loader, "flattened", [loader])
    return all(isinstance(leaf, DataLoader) and leaf.num_workers > 0 for leaf in leaves)


class DeviceCopies:
    """Copies batches to a device in a stream beside the one that computes.

    Args:
        device: Where the batches go.
        streams: What has ``Stream``, ``stream`` and ``current_stream`` for this device, such as `torch.cuda`.
    """

    def __init__(self, device: torch.device, streams: Any) -> None:
        self.device, self.streams = device, streams
        self.side = streams.Stream(device)

    def __call__(self, batch: Any) -> Any:
        """Return the batch on the device, ready for the stream that computes."""
        return self._finish(self._begin(batch))

    def ahead(self, batches: Iterator[Any], count: int | None) -> Iterator[Any]:
        """Give every batch on the device, with the copy of the next one begun.

        Args:
            batches: The batches on the host.
            count: How many to take; None for all.
        """
        taken = 1
        copied = self._begin_next(batches)
        while copied is not _OVER:
            batch = self._finish(copied)
            copied = _OVER
            if count is None or taken < count:
                copied, taken = self._begin_next(batches), taken + 1
            yield batch

    def _begin_next(self, batches: Iterator[Any]) -> Any:
        batch = next(batches, _OVER)
        return batch if batch is _OVER else self._begin(batch)

    def _begin(self, batch: Any) -> Any:
        if not _can_be_recorded(batch):
            return move_to_device(batch, self.device)
        with self.streams.stream(self.side):
            return move_to_device(batch, self.device)

    def _finish(self, batch: Any) -> Any:
        if _can_be_recorded(batch):
            computing = self.streams.current_stream(self.device)
            computing.wait_stream(self.side)
            _record(batch, computing)
        return batch


def _parts(batch: Any) -> list[Any]:
    """Return what a container holds, as `move_to_device` goes through it; nothing for anything else."""
    if isinstance(batch, Mapping):
        return list(batch.values())
    if isinstance(batch, (list, tuple)):
        return list(batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return [getattr(batch, field.name) for field in fields(batch) if hasattr(batch, field.name)]
    return []


def _can_be_recorded(batch: Any) -> bool:
    """Tell whether the memory of a batch can be kept until the stream that computes is done with it.

    What has a ``to`` of its own may hold tensors anywhere; without a ``record_stream`` it is copied where it is used.
    """
    if isinstance(batch, Tensor) or callable(getattr(batch, "record_stream", None)):
        return True
    if callable(getattr(batch, "to", None)) and not isinstance(batch, (type, tuple)):
        return False
    return all(_can_be_recorded(part) for part in _parts(batch))


def _record(batch: Any, stream: Any) -> None:
    record = getattr(batch, "record_stream", None)
    if callable(record):
        if not isinstance(batch, Tensor) or batch.device.type != "cpu":
            record(stream)
        return
    for part in _parts(batch):
        _record(part, stream)
