# SPDX-License-Identifier: Apache-2.0
"""LearningRateMonitor: the learning rates as they are, in the loggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim import Optimizer

from leyden.core.callback import Callback
from leyden.core.errors import LeydenWarning, MisconfigurationException, warn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class NoMomentumWarning(LeydenWarning, RuntimeWarning):
    """An optimiser has no momentum that could be logged."""


class LearningRateMonitor(Callback):
    """Logs the learning rate, and on request momentum and weight decay, of every parameter group.

    A row is called ``lr-Adam``, with ``-1`` for a second optimiser of one kind and ``/pg2`` (or the group's ``name``)
    for the second of several groups; a scheduler's configuration may have another ``name`` for ``lr-Adam``. Momentum
    and weight decay add ``-momentum`` and ``-weight_decay``. Step rows come when ``log_every_n_steps`` has them due.
    What was logged last can be monitored.

    Args:
        logging_interval: ``"step"``, ``"epoch"``, or None for the interval of each scheduler; optimisers without a
            scheduler are then logged at both.
        log_momentum: Whether to log momentum (or the first beta).
        log_weight_decay: Whether to log weight decay.

    Raises:
        MisconfigurationException: ``logging_interval`` is unknown.

    Attributes:
        lrs: Every learning rate that was logged, by name.
        last_momentum_values: The momentum that was logged last, by name.
        last_weight_decay_values: The weight decay that was logged last, by name.

    Examples:
        >>> from leyden.core.callbacks import LearningRateMonitor
        >>> LearningRateMonitor("step").logging_interval
        'step'
    """

    observer = True

    def __init__(
        self,
        logging_interval: Literal["step", "epoch"] | None = None,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
    ) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise MisconfigurationException(
                f"logging_interval should be `step` or `epoch` or `None`; got {logging_interval!r}."
            )
        self.logging_interval = logging_interval
        self.log_momentum, self.log_weight_decay = log_momentum, log_weight_decay
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, float | None] = {}
        self.last_weight_decay_values: dict[str, float | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing logged.

        Raises:
            MisconfigurationException: The trainer has no logger, or groups of one optimiser share a name.
        """
        if not trainer.loggers:
            raise MisconfigurationException(
                "Cannot use `LearningRateMonitor` callback with `Trainer` that has no logger. Give"
                " `Trainer(logger=...)` or remove the callback."
            )
        if self.log_momentum and not all({"momentum", "betas"} & set(o.defaults) for o in trainer.optimizers):
            warn(
                "LY-M001",
                "You have set log_momentum=True, but some optimizers do not have momentum. This will log a value 0 for"
                " the momentum.",
                NoMomentumWarning,
            )
        names = [name for _, base, optimizer in _optimizers(trainer) for name in _names(base, optimizer)]
        self.lrs = {name: [] for name in names}
        self.last_momentum_values = {f"{name}-momentum": None for name in names}
        self.last_weight_decay_values = {f"{name}-weight_decay": None for name in names}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Log at steps, where rows are due."""
        every = trainer.log_every_n_steps
        if self.logging_interval != "epoch" and every and (trainer._progress.windows + 1) % every == 0:
            self._log(trainer, pl_module, "step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log at epochs."""
        if self.logging_interval != "step":
            self._log(trainer, pl_module, "epoch")

    def _log(self, trainer: Trainer, pl_module: LightningModule, moment: str) -> None:
        row: dict[str, float] = {}
        for interval, base, optimizer in _optimizers(trainer):
            names = _names(base, optimizer)
            self._follow(base, names)
            if self.logging_interval is None and interval not in (None, moment):
                continue
            for name, group in zip(names, optimizer.param_groups, strict=True):
                row |= self._values(name, group)
        if row:
            values = {name: torch.tensor(value, device=pl_module.device) for name, value in row.items()}
            trainer.callback_metrics.update(values)
            session = trainer._session
            assert session is not None
            for logger in trainer.loggers:
                # each on its own: one that fails costs neither the others' rows nor this callback
                session.observers.logger(logger, "log_metrics", logger.log_metrics)(row, step=trainer._progress.windows)

    def _follow(self, base: str, names: list[str]) -> None:
        """Give the history of an optimiser's only group to the first one, once others were added."""
        if base in self.lrs and base not in names:
            self.lrs[names[0]] = self.lrs.pop(base)
        for name in names:
            self.lrs.setdefault(name, [])

    def _values(self, name: str, group: dict[str, Any]) -> dict[str, float]:
        values = {name: float(group["lr"])}
        self.lrs[name].append(values[name])
        if self.log_momentum:
            momentum = float(group["betas"][0] if "betas" in group else group.get("momentum", 0))
            values[f"{name}-momentum"] = self.last_momentum_values[f"{name}-momentum"] = momentum
        if self.log_weight_decay:
            decay = float(group.get("weight_decay", 0))
            values[f"{name}-weight_decay"] = self.last_weight_decay_values[f"{name}-weight_decay"] = decay
        return values


def _optimizers(trainer: Trainer) -> Iterator[tuple[str | None, str, Optimizer]]:
    """Yield interval, name and optimiser of every scheduler, and of every optimiser that has none."""
    seen: Counter[str] = Counter()
    scheduled = [(c.interval, c.name, c.scheduler.optimizer) for c in trainer.lr_scheduler_configs]
    having = {id(optimizer) for _, _, optimizer in scheduled}
    alone = [(None, None, optimizer) for optimizer in trainer.optimizers if id(optimizer) not in having]
    for interval, given, optimizer in scheduled + alone:
        base = given or f"lr-{type(optimizer).__name__}"
        yield interval, f"{base}-{seen[base]}" if seen[base] else base, optimizer
        seen[base] += 1


def _names(base: str, optimizer: Optimizer) -> list[str]:
    """Return the name of each parameter group.

    Raises:
        MisconfigurationException: Two groups share a name.
    """
    groups = optimizer.param_groups
    if len(groups) == 1 and not groups[0].get("name"):
        return [base]
    names = [str(group.get("name", f"pg{i}")) for i, group in enumerate(groups, 1)]
    if double := {name for name in names if names.count(name) > 1}:
        raise MisconfigurationException(
            "A single `Optimizer` cannot have multiple parameter groups with identical `name` values. "
            f"{base} has duplicated parameter group names {double}"
        )
    return [f"{base}/{name}" for name in names]
