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
# (batch, batch_idx, batches in its window, opens the window, closes it) -> what training_step returned
StepFunction = Callable[[Any, int, int, bool, bool], Any]


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
                "In automatic_optimization, when `training_step` returns a dict, the 'loss' key needs to be"
                " present; got the"
                f" keys {sorted(map(str, output))}."
            )
        loss = output["loss"]
        if loss is None or isinstance(loss, Tensor):
            return loss
        raise MisconfigurationException(
            f"the 'loss' that `training_step` returned must be a tensor; got {type(loss).__name__}: {loss!r}."
        )
    raise MisconfigurationException(
        "In automatic optimization, `training_step` must return a Tensor, a dict, or None (where the step will be"
        " skipped); got"
        f" {type(output).__name__}: {output!r}."
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


def step_method(s: Session, name: str) -> Callable[[Any, int], Any]:
    """Return the module's step as a function of (batch, batch_idx), whatever of it the user's method takes."""
    method: Callable[..., Any] = getattr(s.module, name)
    if takes(method, "batch_idx", 1):
        return method
    return lambda batch, batch_idx: method(batch)


def manual_step(s: Session) -> StepFunction:
    """Return the step of manual optimisation: the user's ``training_step`` does it all."""
    training_step, book = step_method(s, "training_step"), s.book

    def step(batch: Any, batch_idx: int, divisor: int, opens: bool, closes: bool) -> Any:
        book.hook = "training_step"
        output = training_step(batch, batch_idx)
        book.hook = None
        if output is not None and not isinstance(output, (Tensor, Mapping)):
            raise MisconfigurationException(
                "In manual optimization, `training_step` must either return a Tensor or have no return, or return a"
                " dict; got"
                f" {type(output).__name__}: {output!r}."
            )
        return output

    return step


def automatic_step(s: Session) -> StepFunction:
    """Return the step of automatic optimisation, with everything looked up that does not change within an epoch."""
    if not s.optimizers:
        return _without_optimizer(s)
    optimizer, module = s.optimizers[0], s.module
    if needs_closure(optimizer) or overrides(module, "optimizer_step", LightningModule):
        return _closure_step(s, optimizer)

    forward_and_backward = _forward_and_backward(s)
    step_optimizer, table, hooks, progress = optimizer.step, s.hooks.table, s.hooks, s.progress
    clip = clipping(s, optimizer)

    def step(batch: Any, batch_idx: int, divisor: int, opens: bool, closes: bool) -> Any:
        _, output = forward_and_backward(batch, batch_idx, divisor, opens)
        if closes and s.has_gradients:
            if table["on_before_optimizer_step"]:
                hooks.call("on_before_optimizer_step", optimizer)
            if clip is not None:
                clip()
            step_optimizer()
            progress.global_step += 1
        return output

    return step


def _without_optimizer(s: Session) -> StepFunction:
    forward_and_backward = _forward_and_backward(s)
    return lambda batch, batch_idx, divisor, opens, closes: forward_and_backward(batch, batch_idx, divisor, opens)[1]


def _forward_and_backward(s: Session) -> Callable[[Any, int, int, bool], tuple[Tensor | None, Any]]:
    """Return the part of a step that computes gradients: what a closure holds. It gives the loss and the raw output."""
    training_step, book, table, hooks = step_method(s, "training_step"), s.book, s.hooks.table, s.hooks
    zero_grad = _zero_grad(s, s.optimizers[0]) if s.optimizers else None
    own_backward = None
    if overrides(s.module, "backward", LightningModule):
        own_backward = hooks.scoped("backward", s.module.backward)

    def run(batch: Any, batch_idx: int, divisor: int, opens: bool) -> tuple[Tensor | None, Any]:
        before, book.hook = book.hook, "training_step"
        output = training_step(batch, batch_idx)
        book.hook = before
        loss = output if output.__class__ is Tensor else loss_of(output)
        if opens:
            s.has_gradients = False
        if zero_grad is not None and not s.has_gradients:
            zero_grad(batch_idx)
        if loss is None:
            return None, output
        scaled = loss if divisor == 1 else loss / divisor
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


def _closure_step(s: Session, optimizer: Optimizer) -> StepFunction:
    """Return the nested form: the optimiser gets a closure and decides when, and how often, the model runs."""
    forward_and_backward = _forward_and_backward(s)
    clip = clipping(s, optimizer)
    own_step = s.hooks.scoped("optimizer_step", s.module.optimizer_step)
    wrapped = LightningOptimizer(optimizer, s, after_closure=clip)

    def step(batch: Any, batch_idx: int, divisor: int, opens: bool, closes: bool) -> Any:
        output: Any = None

        def closure() -> Tensor | None:
            nonlocal output
            loss, output = forward_and_backward(batch, batch_idx, divisor, opens)
            return loss

        if closes:
            own_step(s.progress.epoch, batch_idx, wrapped, closure)
        else:
            closure()
        return output

    return step
