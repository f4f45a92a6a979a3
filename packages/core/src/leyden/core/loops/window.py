# SPDX-License-Identifier: Apache-2.0
"""The gradients of an accumulation window: cleared when it opens, made a mean and clipped when it closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException
from leyden.core.hooks import overrides
from leyden.core.loops.returned import weight_of
from leyden.core.module import LightningModule
from leyden.core.session import Session


def clearing(s: Session, optimizer: Optimizer) -> Callable[[int], None]:
    """Return what clears the gradients, with its hooks: (batch_idx)."""
    table, hooks, progress, module = s.hooks.table, s.hooks, s.progress, s.module
    own = hooks.scoped("optimizer_zero_grad", module.optimizer_zero_grad)
    overridden = overrides(module, "optimizer_zero_grad", LightningModule)
    clear = optimizer.zero_grad

    def zero_grad(batch_idx: int) -> None:
        if table["on_before_zero_grad"]:
            hooks.call("on_before_zero_grad", optimizer)
        if overridden:
            own(progress.epoch, batch_idx, optimizer)
        else:
            clear()
        progress.zero_grads += 1

    return zero_grad


def weighted(
    s: Session, optimizer: Optimizer | None, loss: Tensor, output: Any, default: float | None = None
) -> Tensor | None:
    """Return what a batch with a weight adds to its window, not normalised yet; None for one without."""
    weight, key = weight_of(output), id(optimizer)
    weight = default if weight is None else weight
    before = s.window_weights.get(key)
    if (weight is None) != (before is None) and s.has_gradients:
        raise MisconfigurationException(
            "all batches of an accumulation window must return a 'weight', or none: of this window, some did."
        )
    if weight is None:
        return None
    s.window_weights[key] = weight if before is None or not s.has_gradients else before + weight
    total: Tensor = loss * weight
    return total


def settle(s: Session, optimizer: Optimizer, window: int, had: int) -> None:
    """Make the gradients of a window a mean: over the weights of its batches, or over the batches that there were."""
    weight = s.window_weights.pop(id(optimizer), None)
    if weight is not None and s.strategy.world_size > 1:
        # gradients are means over the processes, and shall be one over all weights
        weight = s.strategy.reduce(torch.as_tensor(weight, dtype=torch.float32), reduce_op="mean")
    if isinstance(weight, Tensor):
        rescale(optimizer, weight.clamp(min=torch.finfo(torch.float32).tiny).reciprocal())
    elif weight is not None:
        rescale(optimizer, 1 / weight if weight else 0.0)
    elif had < window:
        rescale(optimizer, window / had)


def close_cut(s: Session, batch_idx: int, window: int, had: int) -> None:
    """Step with what a window holds that its epoch leaves open, if it holds anything."""
    if had and s.has_gradients and s.finish is not None:
        s.strategy.average_gradients()
        s.finish(batch_idx, window, had)
        s.progress.windows += 1


def rescale(optimizer: Optimizer, factor: float | Tensor) -> None:
    """Multiply the gradients of an optimiser's parameters, as where a window had fewer batches than it should."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def clipping(s: Session, optimizer: Optimizer) -> Callable[[], None] | None:
    """Return what clips the gradients, or None if nothing is to be done."""
    flags, module = s.flags, s.module
    overridden = overrides(module, "configure_gradient_clipping", LightningModule)
    if not overridden and not flags.gradient_clip_val:
        return None
    own = s.hooks.scoped("configure_gradient_clipping", module.configure_gradient_clipping)
    value, algorithm = flags.gradient_clip_val, flags.gradient_clip_algorithm
    return lambda: own(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
