# SPDX-License-Identifier: Apache-2.0
"""Bring the states of all ranks together with as few collectives as there can be.

One gather of 8 KiB per rank carries the plan, the sizes and what fits; the rest costs one all_reduce per (operation,
dtype) for fixed shapes and one padded gather. All ranks decide from the same messages: they agree, or all raise.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MESSAGE = 8192
_ALIGN = 16  # the widest element; a tensor that starts elsewhere could not be viewed in its own dtype
_PREFIX = struct.Struct("<16sIII")
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX}
_REDUCIBLE = {"float64", "float32", "float16", "bfloat16", "int64", "int32"}


class PlanMismatchError(ValueError):
    """One key has different specifications on two ranks."""


class _Part:
    """What one rank sent: its plan, dtype and shape of each tensor, and the bytes of the states in its message."""

    def __init__(self, head: Sequence[dict[str, Any]], room: int) -> None:
        self.plan, self.layout = plan, layout = head
        self.payload = torch.empty(0)
        self.placed: dict[str, int] = {}
        size = {n: sum(-(-_size(*piece) // _ALIGN) * _ALIGN for piece in layout[n]) for n in plan}
        weights = {spec[4] for spec in plan.values()}  # read where a mean is folded, hence never summed up unread
        end = 0
        for name in sorted(plan, key=lambda n: (size[n], n)):
            reducible = plan[name][0] in _OPERATIONS and plan[name][1] in _REDUCIBLE and name not in weights
            if end + size[name] <= room or not reducible:
                self.placed[name] = end
                end += size[name]

    def read(self, name: str) -> list[Tensor]:
        tensors, start = [], self.placed[name]
        for dtype, shape in self.layout[name]:
            end = start + _size(dtype, shape)
            tensors.append(self.payload[start:end].view(getattr(torch, dtype)).reshape(shape))
            start = end + -end % _ALIGN
        return tensors


def reduce_states(specs: Mapping[str, Any], states: Mapping[str, Any], group: Any = None) -> dict[str, Any]:
    """Return the states of all ranks as one: a collective that every rank of the group enters.

    Args:
        specs: For each state an object with the fields of a StateSpec. A key that a rank lacks is neutral there.
        states: This rank's values: a tensor, or a list of tensors for a state that grows.
        group: The process group, or None for the default one.

    Returns:
        For each key of any rank its global value, on the CPU or the group's device: a tensor; for ``"cat"`` a list of
        all ranks' tensors in rank order; for ``"merge"`` the values of the ranks that have the key, stacked.

    Raises:
        PlanMismatchError: On every rank, if two ranks give one key different specifications.
    """
    device = torch.device("cuda" if "nccl" in dist.get_backend(group) else "cpu")
    plan = {n: [s.reduction, str(s.dtype)[6:], s.shape, s.neutral, s.weight_of] for n, s in specs.items()}
    local: dict[str, list[Tensor]] = {n: [s] if isinstance(s := states[n], Tensor) else list(s) for n in plan}
    parts = _exchange(plan, local, device, group)
    union: dict[str, Any] = {}
    for rank, part in enumerate(parts):
        for name, spec in part.plan.items():
            changed = name not in part.placed and part.layout[name] != [spec[1:3]]
            if union.setdefault(name, spec) != spec or changed:
                raise PlanMismatchError(
                    f"the state {name!r} must be {union[name]} (reduction, dtype, shape, neutral, weight) everywhere; "
                    f"got {spec} holding {part.layout[name]} on rank {rank}: build it with equal arguments"
                )
    result: dict[str, Any] = {}
    large: dict[tuple[str, str], list[str]] = {}
    for name, spec in sorted(union.items()):
        holders = [part for part in parts if name in part.plan]
        if all(name in part.placed for part in holders):
            weights = [part.read(spec[4])[0] if spec[4] else torch.ones(()) for part in holders]
            result[name] = _folded(spec[0], [part.read(name) for part in holders], weights)
        else:
            large.setdefault((spec[0], spec[1]), []).append(name)
    for (reduction, dtype), names in large.items():
        shares = [local[n][0] if n in local else torch.full(union[n][2], union[n][3]) for n in names]
        flat = torch.cat([share.detach().to(device, getattr(torch, dtype)).reshape(-1) for share in shares])
        dist.all_reduce(flat, _OPERATIONS[reduction], group)
        pieces = torch.split(flat, [share.numel() for share in shares])
        result |= {n: piece.reshape(union[n][2]) for n, piece in zip(names, pieces, strict=True)}
    return result


def _exchange(plan: dict[str, Any], local: dict[str, list[Tensor]], device: torch.device, group: Any) -> list[_Part]:
    layout = {n: [[str(t.dtype)[6:], [*t.shape]] for t in tensors] for n, tensors in local.items()}
    text = json.dumps([plan, layout], sort_keys=True).encode()
    digest, block = hashlib.blake2b(text, digest_size=16).digest(), zlib.compress(text, 1)
    head_size = -(-(_PREFIX.size + len(block)) // _ALIGN) * _ALIGN
    room = max(MESSAGE - head_size, 0)
    body = [_padded(t.detach().to(device)) for n in _Part([plan, layout], room).placed for t in local[n]]
    head = _PREFIX.pack(digest, len(block), room, head_size + sum(b.numel() for b in body)) + block
    message = torch.cat([_padded(torch.frombuffer(bytearray(head), dtype=torch.uint8).to(device)), *body])
    rows = _gather(message[:MESSAGE], MESSAGE, group)
    prefixes = [_PREFIX.unpack(bytes(row[: _PREFIX.size].tolist())) for row in rows]
    if (longest := max(prefix[3] for prefix in prefixes)) > MESSAGE:
        rows = torch.cat([rows, _gather(message[MESSAGE:], longest - MESSAGE, group)], dim=1)
    parts = []
    for row, (their_digest, size, their_room, _) in zip(rows, prefixes, strict=True):
        end = _PREFIX.size + size
        sent = text if their_digest == digest else zlib.decompress(bytes(row[_PREFIX.size : end].tolist()))
        parts.append(_Part(json.loads(sent), their_room))
        parts[-1].payload = row[end + -end % _ALIGN :].clone()  # a new storage, so that views in wider dtypes align
    return parts


def _gather(message: Tensor, width: int, group: Any) -> Tensor:
    rows = [message.new_empty(width) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, torch.nn.functional.pad(message, (0, width - message.numel())), group)
    return torch.stack(rows).cpu()


def _folded(reduction: str, values: list[list[Tensor]], weights: list[Tensor]) -> Tensor | list[Tensor]:
    if reduction == "cat":
        return [tensor for tensors in values for tensor in tensors]
    stacked = torch.stack([tensors[0] for tensors in values])
    if reduction == "mean":
        shares = torch.stack(weights).double()
        shares = shares.reshape(shares.shape + (1,) * (stacked.ndim - shares.ndim))
        mean = (stacked * shares).sum(0) / shares.sum(0)
        return torch.where(shares.sum(0) != 0, mean, stacked[0]).to(stacked.dtype)
    fold: Any = {"sum": torch.sum, "min": torch.amin, "max": torch.amax}.get(reduction)
    return fold(stacked, 0).to(stacked.dtype) if fold else stacked


def _padded(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1).view(torch.uint8)
    return torch.nn.functional.pad(flat, (0, -flat.numel() % _ALIGN))


def _size(dtype: str, shape: list[int]) -> int:
    return torch.Size(shape).numel() * int(getattr(torch, dtype).itemsize)
