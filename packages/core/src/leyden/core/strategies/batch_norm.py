# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation over the batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leyden.core.strategies.differentiable import Summed


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Let every batch normalisation of a module take its statistics from all processes. Weights and names stay.

    Args:
        module: The module, which is changed.
        device: Where it will run: torch's own layer is for accelerators alone.
    """
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            # the class alone changes, so that parameters, buffers and hooks stay those that optimisers know
            layer.__class__ = _synchronised(type(layer))


def _synchronised(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    if issubclass(kind, _OverProcesses):
        return kind
    return type(kind.__name__, (_OverProcesses, kind), {"__module__": kind.__module__})


class _OverProcesses:
    """The forward pass of batch normalisation with means over all processes: one reduction forward, one backward.

    Sums, squares and counts travel together, so that batches of different sizes count by their samples (Ioffe and
    Szegedy, 2015, with the mini-batch of all processes as the mini-batch).
    """

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self
        if not (layer.training and dist.is_initialized() and dist.get_world_size() > 1):
            normalised: Tensor = super().forward(x)  # type: ignore[misc]
            return normalised
        layer._check_input_dim(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.new_full((1,), x.numel() / x.size(1))
        sums: Tensor = Summed.apply(torch.cat([x.sum(axes), x.square().sum(axes), count]))
        total, square, n = sums[: x.size(1)], sums[x.size(1) : -1], sums[-1]
        mean = total / n
        variance = (square / n - mean.square()).clamp(min=0.0)
        _track(layer, mean.detach(), variance.detach(), n.detach())
        shape = [1, -1] + [1] * (x.dim() - 2)
        y = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + layer.eps)
        return y * layer.weight.view(shape) + layer.bias.view(shape) if layer.affine else y


def _track(layer: Any, mean: Tensor, variance: Tensor, n: Tensor) -> None:
    if not layer.track_running_stats:
        return
    layer.num_batches_tracked.add_(1)
    share = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance * n / (n - 1).clamp(min=1.0), share)
