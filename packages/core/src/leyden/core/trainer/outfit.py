# SPDX-License-Identifier: Apache-2.0
"""The callbacks of a trainer: what its flags add, what a module puts in their place, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from leyden.core.callback import Callback
from leyden.core.callbacks.exception_checkpoint import OnExceptionCheckpoint
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.callbacks.progress.progress_bar import ProgressBar
from leyden.core.callbacks.progress.tqdm_progress import TQDMProgressBar
from leyden.core.callbacks.summary import ModelSummary
from leyden.core.callbacks.timer import Timer
from leyden.core.duration import UNITS, Duration
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)
from leyden.core.hooks import overrides
from leyden.core.ranks import rank_zero_info

SAVERS = (ModelCheckpoint, OnExceptionCheckpoint)
GROUP = "leyden.callbacks"


def outfit(
    given: Sequence[Callback], *, max_time: Any, checkpointing: bool | None, bar: bool | None, summary: bool | None
) -> list[Callback]:
    """Return the callbacks of a trainer in calling order.

    Args:
        given: The user's.
        max_time: The flag: adds a timer.
        checkpointing: The flag: adds a `ModelCheckpoint` if nobody saves.
        bar: The flag: adds a progress bar if there is none.
        summary: The flag: adds a `ModelSummary` if there is none.

    Raises:
        MisconfigurationException: A flag and a callback contradict each other, or two callbacks do.
    """
    callbacks = list(given)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise MisconfigurationTypeError(f"`callbacks` must be callbacks; got {callback!r}.")
    _add_checkpoint(callbacks, checkpointing)
    if max_time is not None:
        _add_timer(callbacks, max_time)
    _add_bar(callbacks, bar)
    if summary is not False and not any(isinstance(c, ModelSummary) for c in callbacks):
        callbacks.append(ModelSummary())
    for entry in _entries():
        made = entry.load()()
        callbacks += [made] if isinstance(made, Callback) else list(made)
    check_state_keys(callbacks)
    return savers_last(callbacks)


@cache
def _entries() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _add_checkpoint(callbacks: list[Callback], wanted: bool | None) -> None:
    savers = any(isinstance(c, SAVERS) for c in callbacks)
    if savers and wanted is False:
        raise MisconfigurationException(
            "Trainer was configured with `enable_checkpointing=False` but found `ModelCheckpoint` in callbacks list."
        )
    if not savers and wanted is not False:
        callbacks.append(ModelCheckpoint())


def _add_timer(callbacks: list[Callback], max_time: Any) -> None:
    duration = Duration.parse(max_time, "max_time")
    if duration.time is None:
        raise MisconfigurationValueError(
            f"`max_time` is a time, such as '12h'; got {max_time!r}, which counts {UNITS[duration.unit]}."
        )
    if any(isinstance(c, Timer) for c in callbacks):
        rank_zero_info("Ignoring `Trainer(max_time=...)`, callbacks list already contains a Timer.")
    else:
        callbacks.append(Timer(duration=duration.time))


def _add_bar(callbacks: list[Callback], wanted: bool | None) -> None:
    bars = [c for c in callbacks if isinstance(c, ProgressBar)]
    if len(bars) > 1:
        raise MisconfigurationException(
            "You added multiple progress bar callbacks to the Trainer, but currently only one progress bar is"
            f" supported: {bars}."
        )
    if bars and wanted is False:
        raise MisconfigurationException(
            f"Trainer was configured with `enable_progress_bar=False` but found `{type(bars[0]).__name__}` in callbacks"
            " list."
        )
    if not bars and wanted is not False:
        callbacks.append(TQDMProgressBar())


def check_state_keys(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks whose states would overwrite each other in a checkpoint.

    Raises:
        MisconfigurationRuntimeError: Two that keep state have one ``state_key``.
    """
    seen: set[str] = set()
    for callback in callbacks:
        if not overrides(callback, "state_dict", Callback):
            continue
        if callback.state_key in seen:
            raise MisconfigurationRuntimeError(
                f"Found more than one stateful callback of type `{type(callback).__name__}` with the `state_key`"
                f" {callback.state_key!r}: their states would overwrite each other in checkpoints. The"
                " `callback.state_key` must be unique among all callbacks in the Trainer: override it."
            )
        seen.add(callback.state_key)


def replaced(callbacks: Sequence[Callback], own: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks with the module's own in the place of those of the same type, or of a type above theirs."""
    kinds = {type(c) for c in callbacks} - {Callback}
    # a class of the module's takes the place of the first class that it is or derives from
    overridden = {kind for new in own if (kind := next((k for k in kinds if issubclass(type(new), k)), None))}
    if overridden:
        rank_zero_info(
            "The following callbacks returned in `LightningModule.configure_callbacks` will override existing callbacks"
            f" passed to Trainer: {', '.join(sorted(kind.__name__ for kind in overridden))}"
        )
    return savers_last([*(c for c in callbacks if type(c) not in overridden), *own])


def savers_last(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks with those that save at the end: they save what the others have done."""
    return sorted(callbacks, key=lambda callback: isinstance(callback, SAVERS))
