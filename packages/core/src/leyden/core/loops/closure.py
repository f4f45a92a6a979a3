# SPDX-License-Identifier: Apache-2.0
"""The nested form of a step, for optimisers that call the model themselves and for ``optimizer_step`` overridden."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException
from leyden.core.loops.optimizer import LightningOptimizer
from leyden.core.loops.window import clipping, settle
from leyden.core.optimizers import needs_closure
from leyden.core.session import Session

# (batch, batch_idx, batches that the window should have, place of this batch in it, whether it closes it) -> outputs
StepFunction = Callable[[Any, int, int, int, bool], Any]
# (batch, batch_idx, window, place) -> (loss, outputs)
ForwardAndBackward = Callable[[Any, int, int, int], tuple[Tensor | None, Any]]


def quiet(s: Session, forward_and_backward: ForwardAndBackward) -> ForwardAndBackward:
    """Return the form for batches that leave their window open: processes do not exchange gradients yet."""
    strategy = s.strategy
    if s.flags.accumulate_grad_batches == 1 or strategy.accumulating() is None:
        return forward_and_backward

    def run(batch: Any, batch_idx: int, window: int, place: int) -> tuple[Tensor | None, Any]:
        with strategy.accumulating() or nullcontext():
            return forward_and_backward(batch, batch_idx, window, place)

    return run


def closure_step(s: Session, optimizer: Optimizer, forward_and_backward: ForwardAndBackward) -> StepFunction:
    """Return the nested form: the optimiser gets a closure and decides when, and how often, the model runs."""
    clip = clipping(s, optimizer)
    while_open, strategy = quiet(s, forward_and_backward), s.strategy
    decides = needs_closure(optimizer) and strategy.world_size > 1
    own_step = s.hooks.scoped("optimizer_step", s.module.optimizer_step)
    size, count = 1, 1

    def after_closure() -> None:
        settle(s, optimizer, size, count)
        if clip is not None:
            clip()

    wrapped = LightningOptimizer(optimizer, s, after_closure=after_closure)

    def finish(batch_idx: int, window: int, had: int) -> None:
        nonlocal size, count
        size, count = window, had
        own_step(s.progress.epoch, batch_idx, wrapped, lambda: None)

    s.finish = finish

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        nonlocal size, count
        size, count = window, place + 1
        output: Any = None
        ran = False

        def closure() -> Tensor | None:
            nonlocal output, ran
            ran = True
            loss, output = forward_and_backward(batch, batch_idx, window, place)
            # an optimiser that decides by the loss must decide alike in all processes
            return strategy.reduce(loss.detach()) if decides and loss is not None else loss

        if closes:
            own_step(s.progress.epoch, batch_idx, wrapped, closure)
            if not ran:
                raise MisconfigurationException(
                    "The closure hasn't been executed. HINT: did you call `optimizer_closure()` in your"
                    " `optimizer_step` hook? It could also happen because the `optimizer.step(optimizer_closure)` call"
                    " did not execute it internally."
                )
        else:
            _, output = while_open(batch, batch_idx, window, place)
        return output

    return step
