# SPDX-License-Identifier: Apache-2.0
"""The states of a tree of metrics as one flat mapping, those of shared stores once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from leyden.metrics.errors import MetricValueError
from leyden.metrics.module import StatefulModule
from leyden.metrics.states import UPDATE_COUNT, State, States, StateSpec, on_device

Leaf = tuple[str, StatefulModule]


def by_store(leaves: Iterable[Leaf]) -> list[tuple[str, list[StatefulModule]]]:
    """Group leaves that hold the same store, each group under the path of its first."""
    groups: dict[int, tuple[str, list[StatefulModule]]] = {}
    for path, leaf in leaves:
        members = groups.setdefault(id(leaf._store), (path, []))[1]
        if not any(leaf is member for member in members):
            members.append(leaf)
    return list(groups.values())


def joined(path: str, name: str) -> str:
    """Return a path and what lies below it, either of which may be empty."""
    return f"{path}/{name}" if path and name else path or name


def specs_of(leaves: Iterable[Leaf]) -> dict[str, StateSpec]:
    """Return the specification of every state by its key."""
    specs = {}
    for path, members in by_store(leaves):
        first = members[0]
        for spec in first._store.specs.values():
            weight = joined(path, spec.weight_of) if spec.weight_of else None
            key = joined(path, spec.name)
            specs[key] = replace(spec, name=key, weight_of=weight, persistent=first._is_persistent(spec))
        if first._store.specs:
            key = joined(path, UPDATE_COUNT)
            specs[key] = StateSpec(key, "sum", torch.int64, (), 0)
    return specs


def states_of(leaves: Iterable[Leaf]) -> States:
    """Return every state by its key, as it is: later updates may change it."""
    states: States = {}
    for path, members in by_store(leaves):
        store = members[0]._store
        for name, value in store.values.items():
            states[joined(path, name)] = value
        if store.specs:
            states[joined(path, UPDATE_COUNT)] = torch.tensor(store.count)
    return states


@contextmanager
def installed(leaves: Iterable[Leaf], states: States) -> Iterator[None]:
    """Let the leaves hold other states for the length of a block.

    Raises:
        MetricValueError: If a state is missing.
    """
    before = []
    try:
        for path, members in by_store(leaves):
            store = members[0]._store
            values: States = {}
            for name in store.specs:
                key = joined(path, name)
                if key not in states:
                    raise MetricValueError(f"synced needs every key of state_specs(); {key!r} is missing")
                values[name] = _at(states[key], store.device)
            values |= members[0]._united({n: values[n] for n, s in store.specs.items() if s.reduction == "merge"})
            count = states.get(joined(path, UPDATE_COUNT), store.count)
            world = store.holding(values, int(count if not isinstance(count, list) else store.count))
            world.sharers = len(members)
            for leaf in members:
                before.append((leaf, store, leaf._life.synced))
                leaf.__dict__["_store"] = world
                leaf._life.synced = True
        yield
    finally:
        for leaf, store, synced in reversed(before):
            leaf.__dict__["_store"] = store
            leaf._life.synced = synced


def _at(value: State, device: torch.device) -> State:
    return on_device(value, device) if isinstance(value, Tensor) else [on_device(v, device) for v in value]
