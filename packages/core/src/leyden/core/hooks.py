# SPDX-License-Identifier: Apache-2.0
"""HookTable: for each hook the callables that somebody overrode, found once per run instead of at every step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from leyden.core.callback import Callback
from leyden.core.module import LightningModule
from leyden.core.observers import Observers

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

    world_size: int

    def enter(self, hook: str) -> Any:
        """Begin a hook; returns the scope to go back to."""

    def leave(self, scope: Any) -> None:
        """Go back to an earlier scope."""

    def agree(self) -> Any:
        """Reduce over processes what was logged: a collective."""


def overrides(owner: object, hook: str, base: type) -> bool:
    """Tell whether ``owner`` has a ``hook`` of its own; instance attributes and mocks count."""
    found = getattr(owner, hook, None)
    return found is not None and getattr(found, "__func__", None) is not getattr(base, hook, None)


def replaces(owner: object, hook: str, base: type) -> bool:
    """Tell whether ``owner`` does something else in ``hook`` than ``base``; what only wraps the default does not."""
    found = inspect.unwrap(getattr(owner, hook))
    while isinstance(found, partial):
        found = found.func
    return getattr(found, "__func__", None) is not getattr(base, hook, None)


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


def insists(function: Call, name: str) -> bool:
    """Tell whether a step method or hook has an argument ``name`` without a default."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.default is parameter.empty


def takes_iterator(method: Callable[..., Any]) -> bool:
    """Tell whether a step method fetches its batches itself."""
    try:
        return "dataloader_iter" in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


class ProfilerLike(Protocol):
    """What measures named actions."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:
        """Return a context that measures an action."""


class FeedLike(Protocol):
    """Batches that know which is the last."""

    is_last: bool


def action_of(function: Call, hook: str, module: LightningModule) -> str:
    """Return the name under which a profiler knows a hook: whose it is, the module's if nobody's, and its name."""
    bound = inspect.unwrap(function, stop=lambda f: hasattr(f, "__self__"))
    owner = getattr(bound, "__self__", module)
    if isinstance(owner, Callback):
        return f"[Callback]{owner.state_key}.{hook}"
    kind = "LightningModule" if isinstance(owner, LightningModule) else "LightningDataModule"
    return f"[{kind}]{type(owner).__name__}.{hook}"


class HookTable:
    """The overridden hooks of one run.

    ``table[hook]`` is an empty tuple when nobody overrides the hook, so the loops pay one truth test for it. Callbacks
    come in their order, then the module; at the end of a training epoch callbacks that monitor a value come after it.

    Args:
        trainer: First argument of every callback hook.
        module: The module.
        callbacks: The callbacks in calling order.
        scope: Where the running hook is announced.
        observers: What lets callbacks that only watch fail.
        profiler: What measures the hooks, or None.
    """

    def __init__(
        self,
        trainer: Any,
        module: LightningModule,
        callbacks: Sequence[Callback],
        scope: LogScope,
        observers: Observers,
        profiler: ProfilerLike | None = None,
    ) -> None:
        self._trainer, self._module, self._scope, self._observers = trainer, module, scope, observers
        self.profiler = profiler
        self.callbacks = callbacks
        self.table: dict[str, tuple[Call, ...]] = {}
        self._answering: set[str] = set()
        self.compile()

    def compile(self) -> None:
        """Look up who overrides what. Called at the start of every epoch too: a model may change in between."""
        self._answering.clear()
        for hook in HOOKS:
            monitors = hook == "on_train_epoch_end"
            first = [c for c in self.callbacks if overrides(c, hook, Callback)]
            last = [c for c in first if monitors and getattr(c, "monitors_metrics", False)]
            calls: list[Call] = [self._bound(c, hook) for c in first if c not in last]
            if overrides(self._module, hook, LightningModule):
                self._answering.add(hook)
                own = getattr(self._module, hook)
                calls.append(self.timed(f"[LightningModule]{type(self._module).__name__}.{hook}", own))
            if last and self._scope.world_size > 1:
                calls.append(self._scope.agree)  # what the others logged here can be monitored
            calls += [self._bound(c, hook) for c in last]
            self.table[hook] = tuple(calls)

    def _bound(self, callback: Callback, hook: str) -> Call:
        call = partial(getattr(callback, hook), self._trainer, self._module)
        return self.timed(f"[Callback]{callback.state_key}.{hook}", self._observers.callback(callback, hook, call))

    def timed(self, action: str, function: Call) -> Call:
        """Return ``function`` measured under a name; the function itself where there is no profiler."""
        profiler = self.profiler
        if profiler is None:
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            with profiler.profile(action):
                return function(*args, **kwargs)

        return run

    def timed_batches(self, action: str, batches: Iterator[Any], feed: FeedLike) -> Iterator[Any]:
        """Return the batches of a feed with the fetching of each measured under a name."""
        return batches if self.profiler is None else _timed_batches(self.profiler, action, batches, feed)

    def call(self, hook: str, *args: Any) -> Any:
        """Call everybody who overrides ``hook``; returns what the module answered in a hook that asks it something."""
        result = None
        if calls := self.table[hook]:
            scope = self._scope.enter(hook)
            for function in calls:
                result = function(*args)
            self._scope.leave(scope)
        # callbacks come first, so that the last answer is the module's if it takes part
        return result if hook in self._answering else None

    def scoped(self, hook: str, function: Call) -> Call:
        """Return ``function`` with ``hook`` announced while it runs: for the module's own methods outside the table."""
        enter, leave = self._scope.enter, self._scope.leave
        if self.profiler is not None:
            function = self.timed(action_of(function, hook, self._module), function)

        def run(*args: Any, **kwargs: Any) -> Any:
            scope = enter(hook)
            result = function(*args, **kwargs)
            leave(scope)
            return result

        return run


def _timed_batches(profiler: ProfilerLike, action: str, batches: Iterator[Any], feed: FeedLike) -> Iterator[Any]:
    over = object()
    while not feed.is_last:
        with profiler.profile(action):
            batch = next(batches, over)
        if batch is over:
            return
        yield batch
