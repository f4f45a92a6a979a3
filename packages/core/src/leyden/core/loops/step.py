# SPDX-License-Identifier: Apache-2.0
"""One optimisation step: training_step, zero_grad, backward, clip, optimiser step, in a straight line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.data.rounds import REST
from leyden.core.errors import MisconfigurationException, MisconfigurationRuntimeError
from leyden.core.hooks import overrides, takes, takes_iterator
from leyden.core.loops.closure import ForwardAndBackward, StepFunction, closure_step, quiet
from leyden.core.loops.compiled import compiled_call, compiled_step
from leyden.core.loops.returned import loss_of
from leyden.core.loops.window import clearing, clipping, settle, weighted
from leyden.core.module import LightningModule
from leyden.core.optimizers import needs_closure
from leyden.core.session import Session

# (batch, batch_idx) -> what training_step returned
Call = Callable[[Any, int], Any]


def training_call(s: Session, optimizer_idx: int | None = None) -> Call:
    """Return ``training_step``, with ``training_step_end`` after it, as a function of (batch, batch_idx)."""
    method: Callable[..., Any] = s.module.training_step
    with_batch = takes(method, "batch_idx", 1) and not takes_iterator(method)
    strategy = s.strategy
    method = strategy.step_method("training_step")
    if s.flags.compile and s.module.automatic_optimization:
        method = compiled_call(s, method)
    method = strategy.precision_plugin.around(method)
    method = s.hooks.timed(f"[Strategy]{type(strategy).__name__}.training_step", method)
    if optimizer_idx is not None:
        return _with_end(s, lambda batch, batch_idx: method(batch, batch_idx, optimizer_idx))
    return _with_end(s, method if with_batch else lambda batch, batch_idx: method(batch))


def _with_end(s: Session, call: Call) -> Call:
    """Put ``training_step_end`` behind a call, where the module has one."""
    end = getattr(s.module, "training_step_end", None)
    if end is None:
        return call
    after = s.hooks.scoped("training_step_end", end)
    return lambda batch, batch_idx: after(call(batch, batch_idx))


def manual_step(s: Session) -> StepFunction:
    """Return the step of manual optimisation: the user's ``training_step`` does it all."""
    training_step, book = training_call(s), s.book

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        book.hook = "training_step"
        output = training_step(batch, batch_idx)
        book.hook = None
        if output is not None and not isinstance(output, (Tensor, Mapping)):
            raise MisconfigurationException(
                "In manual optimization, `training_step` must either return a Tensor or have no return, or return a"
                f" dict; got {type(output).__name__}: {output!r}."
            )
        return output

    return step


def automatic_step(s: Session) -> StepFunction:
    """Return the step of automatic optimisation, with everything looked up that does not change within an epoch."""
    if not s.optimizers:
        forward_and_backward = _forward_and_backward(s, training_call(s), None)
        return lambda batch, batch_idx, window, place, closes: forward_and_backward(batch, batch_idx, window, place)[1]
    if len(s.optimizers) == 1:
        return _step_with(s, s.optimizers[0], training_call(s))
    return _step_with_several(s)


def _step_with(s: Session, optimizer: Optimizer, training_step: Call) -> StepFunction:
    """Return the step of one optimiser."""
    if needs_closure(optimizer) or overrides(s.module, "optimizer_step", LightningModule):
        return closure_step(s, optimizer, _forward_and_backward(s, training_step, optimizer))
    forward_and_backward = _forward_and_backward(s, training_step, optimizer)
    while_open = quiet(s, forward_and_backward)
    finish = s.finish = finishing(s, optimizer)

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        _, output = (forward_and_backward if closes else while_open)(batch, batch_idx, window, place)
        if closes and s.has_gradients:
            finish(batch_idx, window, place + 1)
        return output

    return step


def finishing(s: Session, optimizer: Optimizer) -> Callable[[int, int, int], None]:
    """Return what ends an accumulation window: (batch_idx, batches it should have had, batches it had)."""
    precision = s.strategy.precision_plugin
    step_optimizer = compiled_step(s, optimizer) if s.flags.compile else optimizer.step
    if precision.replaces("optimizer_step"):
        step_optimizer = partial(precision.optimizer_step, optimizer)
    unscale = precision.unscale_gradients if precision.replaces("unscale_gradients") else None
    step_optimizer = s.hooks.timed(f"[LightningModule]{type(s.module).__name__}.optimizer_step", step_optimizer)
    table, hooks, progress = s.hooks.table, s.hooks, s.progress
    clip, skips = clipping(s, optimizer), s.flags.on_nonfinite == "skip"

    def finish(batch_idx: int, window: int, had: int) -> None:
        settle(s, optimizer, window, had)
        if unscale is not None:
            unscale(optimizer)
        if skips and s.losses.skips_step(p for group in optimizer.param_groups for p in group["params"]):
            optimizer.zero_grad()
            return
        if table["on_before_optimizer_step"]:
            hooks.call("on_before_optimizer_step", optimizer)
        if clip is not None:
            clip()
        step_optimizer()
        progress.global_step += 1

    return finish


def _forward_and_backward(s: Session, training_step: Call, optimizer: Optimizer | None) -> ForwardAndBackward:
    """Return the part of a step that computes gradients: what a closure holds. It gives the loss and the raw output."""
    book, table, hooks, several = s.book, s.hooks.table, s.hooks, s.strategy.world_size > 1
    zero_grad = clearing(s, optimizer) if optimizer is not None else None
    backward: Callable[[Tensor], Any] = Tensor.backward
    if overrides(s.module, "backward", LightningModule):
        backward = hooks.scoped("backward", s.module.backward)
    strategy, precision = s.strategy, s.strategy.precision_plugin
    backward = hooks.timed(f"[Strategy]{type(strategy).__name__}.backward", backward)
    scale = precision.pre_backward if precision.replaces("pre_backward") else None
    look = s.losses.look()
    # where a process may rest, the mean over processes is one over batches
    alike = 1.0 if several and s.flags.uneven == "join" else None

    def run(batch: Any, batch_idx: int, window: int, place: int) -> tuple[Tensor | None, Any]:
        if batch is REST:
            output: Any = {"loss": strategy.resting_loss(), "weight": 0.0}
        else:
            before, book.hook = book.hook, "training_step"
            output = training_step(batch, batch_idx)
            book.hook = before
        loss = output if output.__class__ is Tensor else loss_of(output)
        if place == 0:
            s.has_gradients = False
        if zero_grad is not None and not s.has_gradients:
            zero_grad(batch_idx)
        if loss is None:
            if several:
                raise skipped(s)
            return None, output
        if look is not None and look(loss):
            return None, output
        scaled = loss
        if window > 1 or several:
            heavy = weighted(s, optimizer, loss, output, alike) if output is not loss or alike else None
            scaled = loss / window if heavy is None else heavy
        if scale is not None:
            scaled = scale(scaled)
        if table["on_before_backward"]:
            hooks.call("on_before_backward", scaled)
        backward(scaled)
        if table["on_after_backward"]:
            hooks.call("on_after_backward")
        s.has_gradients = True
        return loss, output

    return run


def skipped(s: Session) -> MisconfigurationException:
    """Return the error for a step of one process that the others can not know to be left out."""
    return MisconfigurationException(
        f"Skipping the `training_step` by returning None is not supported with {s.strategy.world_size} processes: the"
        " others would wait for this one's gradients. Return a loss of zero that depends on the parameters instead."
    )


def _step_with_several(s: Session) -> StepFunction:
    """Return the step of several optimisers: each in its turn, alone in needing gradients, by its frequency."""
    module = s.module
    if not takes(module.training_step, "optimizer_idx", 2):
        raise MisconfigurationRuntimeError(
            "Training with multiple optimizers is only supported with manual optimization (set"
            " `self.automatic_optimization = False` and step `opt1, opt2, ... = self.optimizers()` yourself), or when"
            f" `training_step` takes `optimizer_idx` and returns the loss of that one of the {len(s.optimizers)}."
        )
    steps = [_step_with(s, optimizer, training_call(s, i)) for i, optimizer in enumerate(s.optimizers)]
    s.finish = None
    turns = [i for i, frequency in enumerate(s.frequencies) for _ in range(frequency)]

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        active = [turns[batch_idx % len(turns)]] if turns else range(len(steps))
        output: Any = None
        for i in active:
            module.toggle_optimizer(s.optimizers[i])
            output = steps[i](batch, batch_idx, window, place, closes)
            module.untoggle_optimizer(s.optimizers[i])
        return output

    return step
