# SPDX-License-Identifier: Apache-2.0
"""When schedulers step."""

from __future__ import annotations

from leyden.core.errors import MisconfigurationException, warn
from leyden.core.optimizers import OptimizerWarning
from leyden.core.session import Session


def update_schedulers(s: Session, interval: str, *, plateau: bool) -> None:
    """Step the schedulers that are due.

    Args:
        s: The run.
        interval: ``"step"`` after an optimiser step, ``"epoch"`` at the end of an epoch.
        plateau: Whether those that need a monitored value are meant, or all others.
    """
    if not s.schedulers or not s.module.automatic_optimization:
        return
    count = s.progress.global_step if interval == "step" else s.progress.epoch + 1
    for config in s.schedulers:
        if config.interval != interval or config.reduce_on_plateau != plateau or count % config.frequency:
            continue
        metric = None
        if config.reduce_on_plateau:
            assert config.monitor is not None
            if interval == "step":
                s.book.agree()
            values = s.book.callback_metrics
            metric = values.get(config.monitor)
            if metric is None:
                missing = f"ReduceLROnPlateau conditioned on metric {config.monitor} which is not available"
                if config.strict:
                    raise MisconfigurationException(
                        f"{missing}. Available metrics are: {sorted(values)}. Condition can be set using `monitor` key"
                        " in lr scheduler dict"
                    )
                warn(
                    "LY-O004",
                    f"{missing} but strict is set to `False`. Skipping learning rate update.",
                    OptimizerWarning,
                )
                continue
        before = s.book.enter("lr_scheduler_step")
        s.module.lr_scheduler_step(config.scheduler, metric)
        s.book.leave(before)
        s.progress.scheduler_steps += 1


def step_schedulers(s: Session, *, closes: bool, last: bool) -> None:
    """Step the schedulers that need no value after a batch.

    Args:
        s: The run.
        closes: Whether the optimiser stepped.
        last: Whether the batch was the last of its epoch.
    """
    if closes:
        update_schedulers(s, "step", plateau=False)
    if last:
        update_schedulers(s, "epoch", plateau=False)
