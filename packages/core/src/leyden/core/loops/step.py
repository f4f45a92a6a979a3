# SPDX-License-Identifier: Apache-2.0
"""One optimisation step: training_step, zero_grad, backward, clip, optimiser step, in a straight line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException
from leyden.core.hooks import overrides, takes
from leyden.core.loops.optimizer import LightningOptimizer
from leyden.core.module import LightningModule
from leyden.core.optimizers import needs_closure
from leyden.core.session import Session

Outputs = dict[str, Any]
# (batch, batch_idx) -> what training_step returned
Call = Callable[[Any, int], Any]
# (batch, batch_idx, batches that the window should have, place of this batch in it, whether it closes it) -> the same
StepFunction = Callable[[Any, int, int, int, bool], Any]


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what ``training_step`` returned.

    Raises:
        MisconfigurationException: It is neither a tensor, a dict with ``"loss"``, nor None.
    """
    if output is None or isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        if "loss" not in output:
            raise MisconfigurationException(
                "In automatic_optimization, when `training_step` returns a dict, the 'loss' key needs to be present;"
                f" got the keys {sorted(map(str, output))}."
            )
        loss = output["loss"]
        if loss is None or isinstance(loss, Tensor):
            return loss
        raise MisconfigurationException(
            f"the 'loss' that `training_step` returned must be a tensor; got {type(loss).__name__}: {loss!r}."
        )
    raise MisconfigurationException(
        "In automatic optimization, `training_step` must return a Tensor, a dict, or None (where the step will be"
        f" skipped); got {type(output).__name__}: {output!r}."
    )


def outputs_of(output: Any) -> Outputs:
    """Return what ``on_train_batch_end`` gets: the unscaled loss, detached, and what else the step returned."""
    if output is None:
        return {}
    if isinstance(output, Tensor):
        return {"loss": output.detach()}
    outputs = dict(output)
    if isinstance(outputs.get("loss"), Tensor):
        outputs["loss"] = outputs["loss"].detach()
    return outputs


def training_call(s: Session, optimizer_idx: int | None = None) -> Call:
    """Return ``training_step``, with ``training_step_end`` after it, as a function of (batch, batch_idx)."""
    method: Callable[..., Any] = s.module.training_step
    with_batch = takes(method, "batch_idx", 1)
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
        return _closure_step(s, optimizer, training_step)
    forward_and_backward = _forward_and_backward(s, training_step, optimizer)
    finish = s.finish = finishing(s, optimizer)

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        _, output = forward_and_backward(batch, batch_idx, window, place)
        if closes and s.has_gradients:
            finish(batch_idx, window, place + 1)
        return output

    return step


def finishing(s: Session, optimizer: Optimizer) -> Callable[[int, int, int], None]:
    """Return what ends an accumulation window: (batch_idx, batches it should have had, batches it had)."""
    step_optimizer, table, hooks, progress = optimizer.step, s.hooks.table, s.hooks, s.progress
    clip = clipping(s, optimizer)

    def finish(batch_idx: int, window: int, had: int) -> None:
        if had < window:
            _rescale(optimizer, window / had)
        if table["on_before_optimizer_step"]:
            hooks.call("on_before_optimizer_step", optimizer)
        if clip is not None:
            clip()
        step_optimizer()
        progress.global_step += 1

    return finish


def _rescale(optimizer: Optimizer, factor: float) -> None:
    """Make gradients that were divided by too many batches the mean over those that there were."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def _forward_and_backward(
    s: Session, training_step: Call, optimizer: Optimizer | None
) -> Callable[[Any, int, int, int], tuple[Tensor | None, Any]]:
    """Return the part of a step that computes gradients: what a closure holds. It gives the loss and the raw output."""
    book, table, hooks = s.book, s.hooks.table, s.hooks
    zero_grad = _zero_grad(s, optimizer) if optimizer is not None else None
    own_backward = None
    if overrides(s.module, "backward", LightningModule):
        own_backward = hooks.scoped("backward", s.module.backward)

    def run(batch: Any, batch_idx: int, window: int, place: int) -> tuple[Tensor | None, Any]:
        before, book.hook = book.hook, "training_step"
        output = training_step(batch, batch_idx)
        book.hook = before
        loss = output if output.__class__ is Tensor else loss_of(output)
        if place == 0:
            s.has_gradients = False
        if zero_grad is not None and not s.has_gradients:
            zero_grad(batch_idx)
        if loss is None:
            return None, output
        scaled = loss if window == 1 else loss / window
        if table["on_before_backward"]:
            hooks.call("on_before_backward", scaled)
        if own_backward is None:
            scaled.backward()  # type: ignore[no-untyped-call]
        else:
            own_backward(scaled)
        if table["on_after_backward"]:
            hooks.call("on_after_backward")
        s.has_gradients = True
        return loss, output

    return run


def _zero_grad(s: Session, optimizer: Optimizer) -> Callable[[int], None]:
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


def clipping(s: Session, optimizer: Optimizer) -> Callable[[], None] | None:
    """Return what clips the gradients, or None if nothing is to be done."""
    flags, module = s.flags, s.module
    overridden = overrides(module, "configure_gradient_clipping", LightningModule)
    if not overridden and not flags.gradient_clip_val:
        return None
    own = s.hooks.scoped("configure_gradient_clipping", module.configure_gradient_clipping)
    value, algorithm = flags.gradient_clip_val, flags.gradient_clip_algorithm
    return lambda: own(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)


def _closure_step(s: Session, optimizer: Optimizer, training_step: Call) -> StepFunction:
    """Return the nested form: the optimiser gets a closure and decides when, and how often, the model runs."""
    forward_and_backward = _forward_and_backward(s, training_step, optimizer)
    clip = clipping(s, optimizer)
    own_step = s.hooks.scoped("optimizer_step", s.module.optimizer_step)
    short = 1.0

    def after_closure() -> None:
        if short != 1.0:
            _rescale(optimizer, short)
        if clip is not None:
            clip()

    wrapped = LightningOptimizer(optimizer, s, after_closure=after_closure)

    def finish(batch_idx: int, window: int, had: int) -> None:
        nonlocal short
        short = window / had
        own_step(s.progress.epoch, batch_idx, wrapped, lambda: None)

    s.finish = finish

    def step(batch: Any, batch_idx: int, window: int, place: int, closes: bool) -> Any:
        nonlocal short
        short = window / (place + 1)
        output: Any = None

        def closure() -> Tensor | None:
            nonlocal output
            loss, output = forward_and_backward(batch, batch_idx, window, place)
            return loss

        if closes:
            own_step(s.progress.epoch, batch_idx, wrapped, closure)
        else:
            closure()
        return output

    return step


def _step_with_several(s: Session) -> StepFunction:
    """Return the step of several optimisers: each in its turn, alone in needing gradients, by its frequency."""
    module = s.module
    if not takes(module.training_step, "optimizer_idx", 2):
        raise MisconfigurationException(
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
