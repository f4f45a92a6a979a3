# SPDX-License-Identifier: Apache-2.0
"""A copy of a state in host memory, which training may go on changing behind it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

# elsewhere storages are not memory that can be copied byte by byte
_STORED = ("cpu", "cuda", "xpu", "mps")


def snapshot(state: dict[str, Any]) -> dict[str, Any]:
    """Copy tensors and plain data so that nothing is shared with the original.

    Tensors that share memory share it in the copy too, which holds it once. The copies are in host memory.

    Args:
        state: Tensors and plain data.

    Examples:
        >>> import torch
        >>> from leyden.core.checkpoint.snapshot import snapshot
        >>> weight = torch.zeros(2)
        >>> copied = snapshot({"weight": weight, "tied": weight})
        >>> _ = weight.fill_(1.0), copied["tied"].fill_(2.0)
        >>> copied["weight"]
        tensor([2., 2.])
    """
    devices: set[torch.device] = set()
    copied: dict[str, Any] = _copied(state, {}, devices)
    for device in devices:
        torch.accelerator.synchronize(device)
    return copied


def _copied(value: Any, storages: dict[int, Tensor], devices: set[torch.device]) -> Any:
    if isinstance(value, Tensor):
        return _tensor(value, storages, devices)
    if isinstance(value, dict):
        # state dicts carry their versions as an attribute, which is written with them
        kept = {key: _copied(item, storages, devices) for key, item in value.items()}
        made = type(value)(kept)
        if own := getattr(value, "__dict__", None):
            made.__dict__.update(copy.deepcopy(own))
        return made
    if isinstance(value, (list, tuple, set)) and not isinstance(value, torch.Size):
        return type(value)(_copied(item, storages, devices) for item in value)
    return bytearray(value) if isinstance(value, bytearray) else value


def _tensor(value: Tensor, storages: dict[int, Tensor], devices: set[torch.device]) -> Tensor:
    tensor = value.detach()
    plain = type(value) in (Tensor, Parameter) and tensor.layout == torch.strided and tensor.device.type in _STORED
    if not plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return tensor.to("cpu", copy=True)
    storage = tensor.untyped_storage()
    held = storages.get(storage._cdata)
    if held is None:
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        if tensor.device.type == "cpu":
            held = whole.clone()
        else:
            devices.add(tensor.device)
            held = whole.to("cpu", non_blocking=True)
        storages[storage._cdata] = held
    same: Tensor = torch.empty(0, dtype=tensor.dtype)
    return same.set_(held.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
