# SPDX-License-Identifier: Apache-2.0
"""Logged values as keys of the transport, which all processes read alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from leyden.core.interfaces import StateSpec
from leyden.core.logbook.results import Key
from leyden.core.logbook.slot import Routing, share_of
from leyden.core.sync import PlanMismatchError

STEP, EPOCH, ROW = "step", "epoch", "row"
_NEUTRAL = {"sum": 0.0, "min": float("inf"), "max": float("-inf")}


@dataclass(frozen=True, slots=True)
class Entry:
    """One logged value as every process can name it; as a text it is a key of the transport.

    Attributes:
        span: Whether it is the value of a step, of the epoch, or a column of steps.
        loader: The loader that was current.
        hook: The hook in which it was logged.
        path: Where the metric is in the module; empty for a number.
        member: The name of a value of a metric.
        kind: How values become one: ``"mean"``, ``"sum"``, ``"min"``, ``"max"``; ``"states"`` for a metric that hands
            over its states, ``"own"`` for one that synchronises itself.
        routing: Where the value goes.
    """

    span: str
    loader: int | None
    hook: str
    path: str
    member: str
    kind: str
    routing: Routing

    @property
    def key(self) -> Key:
        """Where the value is found among results."""
        return self.loader, self.hook, self.routing.name, self.path

    @property
    def identity(self) -> tuple[Any, ...]:
        """What may occur only once."""
        return self.span, *self.key, self.member, self.routing.group

    @property
    def text(self) -> str:
        """The entry as a key of the transport."""
        return json.dumps([self.span, self.loader, self.hook, self.path, self.member, self.kind, astuple(self.routing)])

    @staticmethod
    def parse(text: str) -> Entry:
        """Return the entry that a text stands for."""
        span, loader, hook, path, member, kind, routing = json.loads(text)
        routing[-1] = tuple(routing[-1])
        return Entry(span, loader, hook, path, member, kind, Routing(*routing))


class Plan:
    """What this process offers for one collective.

    Attributes:
        specs: How each state is reduced.
        states: This process's values.
    """

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {}
        self.states: dict[str, Any] = {}

    def number(self, entry: Entry, share: Tensor) -> None:
        """Offer a single value, as the three numbers of `share_of`."""
        reduction: Any = entry.kind if entry.kind in _NEUTRAL else "sum"
        text = entry.text
        self.specs[text] = StateSpec(text, reduction, torch.float64, (3,), _NEUTRAL[reduction])
        self.states[text] = share

    def column(self, entry: Entry, rows: list[tuple[int, Tensor]]) -> None:
        """Offer the values of several steps."""
        text = entry.text
        self.specs[text] = StateSpec(text, "cat", torch.float64, None, None)
        shares = [share_of(entry.kind, value, 1.0, value.dtype == torch.float64) for _, value in rows]
        steps = torch.tensor([[float(step)] for step, _ in rows], dtype=torch.float64)
        self.states[text] = [torch.cat([steps, torch.stack(shares)], 1)]

    def metric(self, entry: Entry, metric: Any) -> None:
        """Offer the states of a metric, or only that it was logged."""
        self.number(entry, torch.zeros(3, dtype=torch.float64))  # says that the metric was logged
        if entry.kind != "states":
            return
        states = metric.export_states()
        for name, spec in metric.state_specs().items():
            key, weight = state_key(entry, name), spec.weight_of and state_key(entry, spec.weight_of)
            self.specs[key] = StateSpec(key, spec.reduction, spec.dtype, spec.shape, spec.neutral, weight_of=weight)
            self.states[key] = states[name]


def united(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of all processes.

    Raises:
        PlanMismatchError: Two of them differ in what was given to `self.log`; all processes see the same entries.
    """
    seen: dict[tuple[Any, ...], Entry] = {}
    for entry in entries:
        other = seen.setdefault(entry.identity, entry)
        if other != entry:
            ours, theirs = ({"reduce_fx": e.kind} | asdict(e.routing) for e in (other, entry))
            differing = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
            raise PlanMismatchError(
                f"`self.log({entry.routing.name or entry.path!r}, ...)` in `{entry.hook}` must have the same arguments"
                f" in all processes; got {differing}: what is logged may depend on the rank, how it is logged may not."
            )
    return list(seen.values())


def state_key(entry: Entry, name: str) -> str:
    """Return the transport's key of a metric's state: the same for each name under which the metric is logged."""
    return f"state of {entry.path}: {name}, {entry.routing.group}"
