# SPDX-License-Identifier: Apache-2.0
"""The flags that count or limit something, as attributes of a trainer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from leyden.core.flags import Flags

T = TypeVar("T")


class _Flag(Generic[T]):
    """An attribute that reads and sets the flag of its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, trainer: None, owner: type) -> _Flag[T]: ...

    @overload
    def __get__(self, trainer: Settings, owner: type) -> T: ...

    def __get__(self, trainer: Settings | None, owner: type) -> _Flag[T] | T:
        if trainer is None:
            return self
        value: T = getattr(trainer.flags, self.name)
        return value

    def __set__(self, trainer: Settings, value: T) -> None:
        setattr(trainer.flags, self.name, value)


class _Limit(_Flag[T]):
    """A flag that only the loops may change: `trainer.fit_loop`."""

    def __set__(self, trainer: Settings, value: T) -> None:
        raise AttributeError(f"`trainer.{self.name}` can not be set; set `trainer.fit_loop.{self.name}`.")


class Settings:
    """What a trainer was told, and what may be told otherwise between two calls of its verbs."""

    flags: Flags

    max_epochs = _Limit[int | None]()
    """Epochs to train; -1 for no limit, None if it is left open until a fit begins."""
    min_epochs = _Limit[int | None]()
    """Epochs before which a stop is not heeded."""
    max_steps = _Limit[int]()
    """Optimiser steps to train; -1 for no limit."""
    min_steps = _Limit[int | None]()
    """Optimiser steps before which a stop is not heeded."""
    fast_dev_run = _Flag[int | bool]()
    """Batches to try; False for a real run."""
    limit_train_batches = _Flag[float | int]()
    """How much of a training epoch: an int counts batches, a float is a fraction."""
    limit_val_batches = _Flag[float | int]()
    """How much of each validation loader."""
    limit_test_batches = _Flag[float | int]()
    """How much of each test loader."""
    limit_predict_batches = _Flag[float | int]()
    """How much of each prediction loader."""
    overfit_batches = _Flag[float | int]()
    """How much of the data is trained and validated on again and again; 0 for all."""
    val_check_interval = _Flag[float | int | timedelta]()
    """Validate every this fraction of an epoch (float), number of batches (int) or time."""
    check_val_every_n_epoch = _Flag[int | None]()
    """Validate in every n-th epoch; None counts ``val_check_interval`` over epochs."""
    reload_dataloaders_every_n_epochs = _Flag[int]()
    """Epochs after which the loaders are asked for again; 0 for never."""
    log_every_n_steps = _Flag[int]()
    """Steps between two rows of step values; 0 for none."""
    accumulate_grad_batches = _Flag[int]()
    """Batches per optimiser step. A change counts from the next epoch on."""
    gradient_clip_val = _Flag[float | int | None]()
    """Where gradients are clipped. A change counts from the next epoch on."""
    gradient_clip_algorithm = _Flag[str | None]()
    """How gradients are clipped: ``"norm"`` or ``"value"``."""
    barebones = _Flag[bool]()
    """Whether everything that costs time is switched off."""

    @property
    def num_sanity_val_steps(self) -> float | int:
        """Validation batches that are tried before training; infinite for all."""
        steps = self.flags.num_sanity_val_steps
        return float("inf") if steps == -1 else steps

    @num_sanity_val_steps.setter
    def num_sanity_val_steps(self, value: Any) -> None:
        self.flags.num_sanity_val_steps = -1 if value == float("inf") else value
