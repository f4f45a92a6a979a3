# SPDX-License-Identifier: Apache-2.0
"""Moving a batch of any shape to a device."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def move_to_device(batch: Any, device: torch.device | str) -> Any:
    """Return ``batch`` with every tensor, and everything that has a ``to(device)`` method, on ``device``.

    Lists, tuples, named tuples, dicts and dataclasses are rebuilt around the moved parts; anything else stays. What is
    given is not changed.

    Args:
        batch: Tensors in any nesting.
        device: Where they go.

    Examples:
        >>> import torch
        >>> from leyden.core.transfer import move_to_device
        >>> move_to_device({"x": torch.zeros(2), "name": "a"}, "cpu")["name"]
        'a'
    """
    if isinstance(batch, Tensor):
        if batch.device == torch.device(device):
            return batch
        # a copy that the host does not wait for is only safe where the device keeps the order
        return batch.to(device, non_blocking=torch.device(device).type not in ("cpu", "mps"))
    # before the containers: a packed sequence is a tuple that knows which of its tensors must stay on the CPU
    to = getattr(batch, "to", None)
    if callable(to) and not isinstance(batch, type):
        moved = to(device)
        return batch if moved is None else moved
    return _rebuilt(batch, lambda part: move_to_device(part, device))


def apply_to_tensors(data: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return ``data`` with every tensor replaced by what ``function`` makes of it; what is given is not changed.

    Args:
        data: Tensors in any nesting of lists, tuples, named tuples, dicts and dataclasses.
        function: Called with each tensor.

    Examples:
        >>> import torch
        >>> from leyden.core.transfer import apply_to_tensors
        >>> apply_to_tensors({"x": torch.ones(2), "name": "a"}, lambda x: int(x.sum()))
        {'x': 2, 'name': 'a'}
    """
    if isinstance(data, Tensor):
        return function(data)
    return _rebuilt(data, lambda part: apply_to_tensors(part, function))


def _rebuilt(batch: Any, each: Callable[[Any], Any]) -> Any:
    if isinstance(batch, (list, tuple)):
        parts = [each(v) for v in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, MutableMapping):
        # copied, so that a mapping with a constructor of its own stays what it is
        batch = copy.copy(batch)
        for key, value in batch.items():
            batch[key] = each(value)
        return batch
    if is_dataclass(batch) and not isinstance(batch, type):
        rebuilt = copy.copy(batch)
        for field in fields(batch):
            if hasattr(batch, field.name):
                object.__setattr__(rebuilt, field.name, each(getattr(batch, field.name)))
        return rebuilt
    return batch
