# SPDX-License-Identifier: Apache-2.0
"""HookTable: for each hook the callables that somebody overrode, found once per run instead of at every step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from leyden.core.callback import Callback
from leyden.core.module import LightningModule

STAGES = ("train", "validation", "test", "predict")
HOOKS: tuple[str, ...] = (
    "on_fit_start",
    "on_fit_end",
    "on_sanity_check_start",
    "on_sanity_check_end",
    *(f"on_{stage}_{when}" for stage in STAGES for when in ("start", "end", "epoch_start", "epoch_end")),
    *(f"on_{stage}_batch_{when}" for stage in STAGES for when in ("start", "end")),
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
Call = Callable[..., Any]


class LogScope(Protocol):
    """Where `HookTable` announces which hook runs, so that logging knows its rules."""

    def enter(self, hook: str) -> Any:
        """Begin a hook; returns the scope to go back to."""

    def leave(self, scope: Any) -> None:
        """Go back to an earlier scope."""


def overrides(owner: object, hook: str, base: type) -> bool:
    """Tell whether ``owner`` has a ``hook`` of its own; instance attributes and mocks count."""
    found = getattr(owner, hook, None)
    return found is not None and getattr(found, "__func__", None) is not getattr(base, hook, None)


def takes(function: Call, name: str, position: int) -> bool:
    """Tell whether a step method takes the argument ``name``, by name or as its positional argument ``position``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return True
    if any(p.name == name or p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > position


class HookTable:
    """The overridden hooks of one run.

    ``table[hook]`` is an empty tuple when nobody overrides the hook, so the loops pay one truth test for it. Callbacks
    come in their order, then the module; at the end of a training epoch callbacks that monitor a value come after it.

    Args:
        trainer: First argument of every callback hook.
        module: The module.
        callbacks: The callbacks in calling order.
        scope: Where the running hook is announced.
    """

    def __init__(self, trainer: Any, module: LightningModule, callbacks: Sequence[Callback], scope: LogScope) -> None:
        self._trainer, self._module, self._scope = trainer, module, scope
        self.callbacks = callbacks
        self.table: dict[str, tuple[Call, ...]] = {}
        self.compile()

    def compile(self) -> None:
        """Look up who overrides what. Called at the start of every epoch too: a model may change in between."""
        for hook in HOOKS:
            monitors = hook == "on_train_epoch_end"
            first = [c for c in self.callbacks if overrides(c, hook, Callback)]
            last = [c for c in first if monitors and getattr(c, "monitors_metrics", False)]
            calls: list[Call] = [partial(getattr(c, hook), self._trainer, self._module) for c in first if c not in last]
            if overrides(self._module, hook, LightningModule):
                calls.append(getattr(self._module, hook))
            calls += [partial(getattr(c, hook), self._trainer, self._module) for c in last]
            self.table[hook] = tuple(calls)

    def call(self, hook: str, *args: Any) -> Any:
        """Call everybody who overrides ``hook``; returns what the last one, the module if it takes part, returned."""
        result = None
        if calls := self.table[hook]:
            scope = self._scope.enter(hook)
            for function in calls:
                result = function(*args)
            self._scope.leave(scope)
        return result

    def scoped(self, hook: str, function: Call) -> Call:
        """Return ``function`` with ``hook`` announced while it runs: for the module's own methods outside the table."""
        enter, leave = self._scope.enter, self._scope.leave

        def run(*args: Any, **kwargs: Any) -> Any:
            scope = enter(hook)
            result = function(*args, **kwargs)
            leave(scope)
            return result

        return run
