# SPDX-License-Identifier: Apache-2.0
"""What happens around a metric's own ``update``, ``compute`` and ``forward``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leyden.metrics.errors import MetricError, MetricTypeError
from leyden.metrics.states import Store, clock, outside_of_autograd

if TYPE_CHECKING:
    from leyden.metrics.metric import Metric


def counted_update(update: Callable[..., None]) -> Callable[..., None]:
    """Wrap a class's ``update``: one more batch, no autograd, no larger storage kept alive."""

    @functools.wraps(update)
    def counted(self: Metric, *args: Any, **kwargs: Any) -> None:
        life = self._life
        if life.updating:  # an override that calls super().update()
            update(self, *args, **kwargs)
            return
        if life.synced:
            raise MetricError(f"{type(self).__name__} holds the states of all ranks; update it outside of synced()")
        store = self._store if self._store.sharers == 1 else self._own_store()
        if not store.count and not store.placed:
            store.adopt_device(args)
        life.updating = True
        try:
            if torch.is_inference_mode_enabled():
                with outside_of_autograd():
                    update(self, *args, **kwargs)
            elif torch.is_grad_enabled() and not life.keep_grad and _records(self, args, kwargs):
                with torch.no_grad():
                    update(self, *args, **kwargs)
            else:
                update(self, *args, **kwargs)
            store.count += 1
        finally:
            life.updating = False
            store.version = next(clock)
        if store.growing and not life.keep_grad:
            store.let_go()
        if self._eager:
            self._check_values()

    return counted


def _records(metric: Metric, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether autograd could record the update; entering `no_grad` costs as much as an operation."""
    if not metric._inputs_only or kwargs:
        return True
    return any(isinstance(value, Tensor) and value.requires_grad for value in args)


def remembered_compute(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a class's ``compute``: all ranks' states, the deferred checks, a value kept until it is stale."""

    @functools.wraps(compute)
    def remembered(self: Metric) -> Any:
        if self._life.computing:  # an override that calls super().compute(), or the inside of this wrapper
            return compute(self)
        return self._compute_once()

    return remembered


def forward_together(members: Sequence[Metric], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Run one batch through metrics that share a store: one update, then the value of the batch for each member."""
    leader = members[0]
    main = leader._own_store()
    if leader._life.synced:
        raise MetricError(f"{type(leader).__name__} holds the states of all ranks; call it outside of synced()")
    twice = leader._updates_twice()
    if twice:
        leader.update(*args, **kwargs)
    elif not main.count and not main.placed:
        main.adopt_device(args)
    batch = main.fresh()
    batch.placed = True
    leader._life.keep_grad = bool(leader.is_differentiable) and torch.is_grad_enabled()
    try:
        _hold(members, batch)
        leader.update(*args, **kwargs)
        _hold(members, main)
        if not twice:
            leader._absorb(batch)
        for name in leader._epoch_wide:
            batch.values[name] = main.values[name]
        _hold(members, batch)
        return [member._batch_value() for member in members]
    finally:
        leader._life.keep_grad = False
        _hold(members, main)


def _hold(members: Sequence[Metric], store: Store) -> None:
    for member in members:
        member.__dict__["_store"] = store


def finished(value: Any, store: Store | None = None) -> Any:
    """Make single numbers 0-dim, and give what is a view of a state a memory of its own."""
    if isinstance(value, Tensor):
        if value.ndim and value.numel() == 1:
            value = value.reshape(())
        if store is not None:
            memory = value.untyped_storage().data_ptr()
            tensors = (s for s in store.values.values() if isinstance(s, Tensor))
            if any(memory == s.untyped_storage().data_ptr() for s in tensors):
                value = value.clone()
        return value
    if isinstance(value, Mapping):
        return {key: finished(item, store) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(finished(item, store) for item in value)
    return value


@functools.cache
def _keywords(update: Callable[..., None]) -> frozenset[str] | None:
    parameters = inspect.signature(update).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


def keywords_of(metrics: Sequence[Metric], kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return for each metric the keywords that its ``update`` knows.

    Raises:
        MetricTypeError: If none of the metrics knows a keyword.
    """
    if not kwargs:
        return [kwargs] * len(metrics)
    known = [_keywords(type(metric).update) for metric in metrics]
    for name in kwargs:
        if not any(names is None or name in names for names in known):
            owners = ", ".join(type(metric).__name__ for metric in metrics)
            raise MetricTypeError(f"update of none of {owners} takes the argument {name!r}; leave it out")
    return [kwargs if names is None else {k: v for k, v in kwargs.items() if k in names} for names in known]
