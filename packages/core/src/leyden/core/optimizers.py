# SPDX-License-Identifier: Apache-2.0
"""Everything that ``configure_optimizers`` may return, read into optimisers and scheduler configurations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from leyden.core.errors import (
    LeydenWarning,
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    warn,
)
from leyden.core.module import LightningModule

_FORMS = (
    "Unknown configuration for model optimizers. Output from `model.configure_optimizers()` should be one of: an"
    " `Optimizer`; a list or tuple of them; a dict with 'optimizer' and perhaps 'lr_scheduler'; a list of such dicts;"
    " or ([optimizers], [schedulers])"
)


class OptimizerWarning(LeydenWarning, RuntimeWarning):
    """Optimisers or schedulers were set up in a way that is probably a mistake."""


@dataclass
class LRSchedulerConfig:
    """A scheduler with the rule of when it steps.

    Attributes:
        scheduler: The scheduler.
        name: Name for monitors of the learning rate.
        interval: ``"epoch"``, or ``"step"`` for optimiser steps.
        frequency: Every how many intervals it steps, counted over the whole run.
        reduce_on_plateau: Whether stepping needs a monitored value.
        monitor: Name of that value.
        strict: Whether a missing value is an error.

    Examples:
        >>> import torch
        >>> from leyden.core.optimizers import LRSchedulerConfig
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> LRSchedulerConfig(torch.optim.lr_scheduler.StepLR(optimizer, 1), interval="step").frequency
        1
    """

    scheduler: Any
    name: str | None = None
    interval: str = "epoch"
    frequency: int = 1
    reduce_on_plateau: bool = False
    monitor: str | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        if self.interval not in ("step", "epoch"):
            raise MisconfigurationException(
                f'The "interval" key in lr scheduler dict must be "step" or "epoch" but is "{self.interval}".'
            )
        if not isinstance(self.frequency, int) or self.frequency < 1:
            raise MisconfigurationValueError(
                f'The "frequency" of a lr scheduler must be an int of at least 1; got {self.frequency!r}.'
            )


def configured(module: Any) -> tuple[list[Optimizer], list[LRSchedulerConfig], list[int]]:
    """Call ``configure_optimizers`` and read what it returns.

    Args:
        module: The module.

    Returns:
        The optimisers and the schedulers, both in the order in which they were returned, and for how many batches each
        optimiser has its turn; no numbers if all step at every batch.

    Raises:
        MisconfigurationException: It is none of the known forms.
    """
    value = module.configure_optimizers()
    optimizers, schedulers, monitor = _parse([] if value is None else value)
    if not optimizers and (value is None or module.automatic_optimization):
        warn(
            "LY-O001",
            f"`LightningModule.configure_optimizers` returned `{value!r}`, this fit will run with no optimizer",
        )
    configs = [_scheduler(s, monitor) for s in schedulers]
    for config in configs:
        if module.automatic_optimization:
            _check_steppable(config, module)
        if config.reduce_on_plateau and config.monitor is None and module.automatic_optimization:
            raise MisconfigurationException(
                "`configure_optimizers` must include a monitor when a `ReduceLROnPlateau` scheduler is used. For"
                ' example: {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "metric_to_track"}'
            )
        owner = getattr(config.scheduler, "optimizer", None)
        if isinstance(owner, Optimizer) and not any(owner is o for o in optimizers):
            raise MisconfigurationException(
                "Some schedulers are attached with an optimizer that wasn't returned from `configure_optimizers`."
            )
    return optimizers, configs, _frequencies(value)


def _check_steppable(config: LRSchedulerConfig, module: Any) -> None:
    """Refuse a scheduler that nobody knows how to step, and warn where one steps too seldom to be meant so."""
    scheduler = config.scheduler
    known = isinstance(scheduler, (LRScheduler, ReduceLROnPlateau))
    stepped_by_default = getattr(module.lr_scheduler_step, "__func__", None) is LightningModule.lr_scheduler_step
    if not known and stepped_by_default:
        raise MisconfigurationException(
            f"The provided lr scheduler `{type(scheduler).__name__}` doesn't follow PyTorch's LRScheduler API: override"
            " the `LightningModule.lr_scheduler_step` hook to say how it steps."
        )
    if isinstance(scheduler, OneCycleLR) and config.interval == "epoch":
        warn(
            "LY-O005",
            "A `OneCycleLR` scheduler is using 'interval': 'epoch'. Are you sure you didn't mean 'interval': 'step'?",
            OptimizerWarning,
        )


def _frequencies(value: Any) -> list[int]:
    """Return the ``frequency`` of each optimiser in a list of dicts, where one has it."""
    entries = value if isinstance(value, (list, tuple)) and all(isinstance(d, Mapping) for d in value) else []
    given = [entry.get("frequency") for entry in entries]
    if all(frequency is None for frequency in given):
        return []
    for frequency in given:
        if not isinstance(frequency, int) or isinstance(frequency, bool) or frequency < 1:
            raise MisconfigurationValueError(
                f"with several optimizers either all or none have a `frequency`, an int of at least 1; got {given}."
            )
    return [int(frequency) for frequency in given if frequency is not None]


def _parse(value: Any) -> tuple[list[Optimizer], list[Any], str | None]:
    if isinstance(value, Optimizer):
        return [value], [], None
    if isinstance(value, Mapping):
        _check_keys(value)
        found = value.get("lr_scheduler")
        return [value["optimizer"]], [] if found is None else [found], value.get("monitor")
    if not isinstance(value, (list, tuple)):
        raise MisconfigurationException(f"{_FORMS}; got {type(value).__name__}.")
    if len(value) == 2 and isinstance(value[0], (list, tuple)) and all(isinstance(o, Optimizer) for o in value[0]):
        schedulers = value[1] if isinstance(value[1], (list, tuple)) else [value[1]]
        return list(value[0]), list(schedulers), None
    if all(isinstance(o, Optimizer) for o in value):
        return list(value), [], None
    if all(isinstance(d, Mapping) for d in value):
        optimizers: list[Optimizer] = []
        found_schedulers: list[Any] = []
        for entry in value:
            _check_keys(entry)
            optimizers.append(entry["optimizer"])
            if entry.get("lr_scheduler") is not None:
                found_schedulers.append(_scheduler(entry["lr_scheduler"], entry.get("monitor")))
        return optimizers, found_schedulers, None
    raise MisconfigurationException(f"{_FORMS}; got {value!r}.")


def _check_keys(entry: Mapping[str, Any]) -> None:
    if not isinstance(entry.get("optimizer"), Optimizer):
        raise MisconfigurationException(f"{_FORMS}; the dict has no optimizer under 'optimizer': {entry!r}.")
    extra = set(entry) - {"optimizer", "lr_scheduler", "monitor", "frequency"}
    if extra:
        warn("LY-O002", f"Found unsupported keys in the optimizer configuration: {extra}", OptimizerWarning)


def _scheduler(given: Any, monitor: str | None) -> LRSchedulerConfig:
    if isinstance(given, LRSchedulerConfig):
        return given
    if isinstance(given, Mapping):
        if "scheduler" not in given:
            raise MisconfigurationException(
                'The lr scheduler dict must have the key "scheduler" with its item being an lr scheduler; got'
                f" {given!r}."
            )
        known = {f.name for f in fields(LRSchedulerConfig)}
        extra = set(given) - known
        if extra:
            warn(
                "LY-O003",
                f"Found unsupported keys in the lr scheduler dict: {extra}. HINT: remove them from the output of"
                " `configure_optimizers`.",
                OptimizerWarning,
            )
        settings: dict[str, Any] = {k: v for k, v in given.items() if k in known}
        if monitor is not None:
            settings.setdefault("monitor", monitor)
        given = settings.pop("scheduler")
    else:
        settings = {"monitor": monitor}
    if not all(callable(getattr(given, method, None)) for method in ("state_dict", "load_state_dict")):
        raise MisconfigurationTypeError(
            f"The provided lr scheduler `{type(given).__name__}` is invalid. It should have `state_dict` and"
            f" `load_state_dict` methods defined, so that it can be saved and resumed; got {given!r}."
        )
    settings.setdefault("reduce_on_plateau", isinstance(given, ReduceLROnPlateau))
    return LRSchedulerConfig(given, **settings)


def needs_closure(optimizer: Optimizer) -> bool:
    """Tell whether ``optimizer.step`` must be given a closure that computes the loss again, as LBFGS must."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
