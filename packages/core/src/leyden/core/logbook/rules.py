# SPDX-License-Identifier: Apache-2.0
"""Where logging is allowed, and what it does there unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from leyden.core.errors import MisconfigurationException


@dataclass(frozen=True, slots=True)
class Rule:
    """What `self.log` does in one hook.

    Attributes:
        on_step: Whether values are logged at the step by default.
        on_epoch: Whether values are reduced over the epoch by default.
        free: Whether the arguments may say otherwise.
    """

    on_step: bool
    on_epoch: bool
    free: bool


_STEP, _EVALUATION, _EPOCH = Rule(True, False, True), Rule(False, True, True), Rule(False, True, False)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "training_step",
            "training_step_end",
            "on_train_batch_start",
            "on_train_batch_end",
            "on_before_zero_grad",
            "on_before_backward",
            "optimizer_zero_grad",
            "backward",
            "on_after_backward",
            "on_before_optimizer_step",
            "optimizer_step",
            "configure_gradient_clipping",
        ),
        _STEP,
    ),
    **{
        name: _EVALUATION
        for stage in ("validation", "test")
        for name in (f"{stage}_step", f"{stage}_step_end", f"on_{stage}_batch_start", f"on_{stage}_batch_end")
    },
    **{
        f"on_{stage}_{when}": _EPOCH
        for stage in ("train", "validation", "test")
        for when in ("start", "epoch_start", "epoch_end")
    },
}
for _name in ("training_epoch_end", "validation_epoch_end", "test_epoch_end"):
    _RULES[_name] = _EPOCH


def resolve(hook: str | None, on_step: bool | None, on_epoch: bool | None) -> tuple[bool, bool]:
    """Return (on_step, on_epoch) for a value logged in ``hook``.

    Raises:
        MisconfigurationException: The hook does not support logging, or not with these arguments.
    """
    if hook is None:
        raise MisconfigurationException(
            "You are trying to `self.log()` but it is not managed by the `Trainer` control flow: log inside a hook or"
            " a step."
        )
    rule = _RULES.get(hook)
    if rule is None:
        raise MisconfigurationException(
            f"You can't `self.log()` inside `{hook}`. Hooks that log are the steps, their batch hooks, and the start"
            " and end of epochs in training, validation and test; elsewhere, use `self.logger` itself."
        )
    step = rule.on_step if on_step is None else on_step
    epoch = rule.on_epoch if on_epoch is None else on_epoch
    if not rule.free:
        for name, value, allowed in (("on_step", step, False), ("on_epoch", epoch, True)):
            if value != allowed:
                raise MisconfigurationException(
                    f"You can't `self.log({name}={value})` inside `{hook}`, must be one of {(allowed,)}."
                )
    if not step and not epoch:
        raise MisconfigurationException("`self.log(on_step=False, on_epoch=False)` is not useful.")
    return step, epoch
