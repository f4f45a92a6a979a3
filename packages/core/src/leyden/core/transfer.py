# SPDX-License-Identifier: Apache-2.0
"""Moving a batch of any shape to a device."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def move_to_device(batch: Any, device: torch.device | str) -> Any:
    """Return ``batch`` with every tensor, and everything that has a ``to(device)`` method, on ``device``.

    Lists, tuples, named tuples, dicts and dataclasses are rebuilt around the moved parts; anything else stays.

    Args:
        batch: Tensors in any nesting.
        device: Where they go.

    Example:
        >>> import torch
        >>> from leyden.core.transfer import move_to_device
        >>> move_to_device({"x": torch.zeros(2), "name": "a"}, "cpu")["name"]
        'a'
    """
    if isinstance(batch, Tensor):
        if batch.device == torch.device(device):
            return batch
        return batch.to(device, non_blocking=torch.device(device).type == "cuda")
    if isinstance(batch, (list, tuple)):
        parts = [move_to_device(v, device) for v in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, dict):
        items = {k: move_to_device(v, device) for k, v in batch.items()}
        if isinstance(batch, defaultdict):
            return defaultdict(batch.default_factory, items)
        return OrderedDict(items) if isinstance(batch, OrderedDict) else items
    if is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            object.__setattr__(batch, field.name, move_to_device(getattr(batch, field.name), device))
        return batch
    to = getattr(batch, "to", None)
    if callable(to):
        moved = to(device)
        return batch if moved is None else moved
    return batch
