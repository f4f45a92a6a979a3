# SPDX-License-Identifier: Apache-2.0
"""What is logged, over all processes: one collective at fixed places of the loop, and readings that are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationException
from leyden.core.interfaces import SyncableMetric
from leyden.core.logbook.plan import EPOCH, ROW, STEP, Entry, Plan, state_key, united
from leyden.core.logbook.results import Agreed, Results
from leyden.core.logbook.slot import (
    AnySlot,
    MetricSlot,
    Routing,
    Slot,
    batch_value,
    share_of,
    value_of,
)
from leyden.core.sync import reduce_states

Rows = dict[int, dict[str, Tensor]]


class Agreement:
    """Brings what several processes log together.

    `settle` is a collective, entered by all processes at the same places of the loop whatever each of them has logged;
    `values` reads, on any process at any time.

    Args:
        module: The module whose metrics are logged.
        group: The process group; None for all processes.

    Attributes:
        rows_meet: Whether rows of training steps hold values of all processes, as they agreed; None before the first.
    """

    def __init__(self, module: nn.Module | None, group: Any = None) -> None:
        self._module, self._group = module, group
        self.rows_meet: bool | None = None

    # -- the collective ------------------------------------------------------------------------------------------------

    def settle(self, results: Results, *, epoch: bool) -> Rows:
        """Reduce the last step's values of training, and with ``epoch`` what is not settled of the epoch's values.

        Returns:
            The rows of an evaluation's steps that waited for this.

        Raises:
            PlanMismatchError: On all processes, if two of them log one name with different arguments.
        """
        places = self._places(results)
        plan, slots = Plan(), dict[str, AnySlot]()
        for hook, slot in results.slots():
            path = places.get(id(slot), "")
            if (
                epoch
                and slot.routing.on_epoch
                and (results.loader, hook, slot.routing.name, path) not in results.epochs
            ):
                self._offer_epoch(plan, slots, results, hook, path, slot)
            if results.training and slot.routing.on_step and not slot.routing.solo:
                _offer_step(plan, slots, results, hook, path, slot)
        if epoch:
            for entry, rows in results.held.items():
                plan.column(entry, rows)
            results.held = {}
        world = reduce_states(plan.specs, plan.states, self._group)
        entries = united(Entry.parse(text) for text in sorted(world) if text.startswith("["))
        if results.training:
            results.steps = {}
            self.rows_meet = bool(self.rows_meet) or any(e.span == STEP and e.routing.sync for e in entries)
        rank = dist.get_rank()
        mine = [e for e in entries if not e.routing.group or rank in e.routing.group]
        for entry in mine:
            self._install(results, entry, slots.get(entry.text), world)
        if any(entry.kind == "own" and entry.span == EPOCH for entry in entries):
            self._level(results, [entry for entry in mine if entry.kind == "own" and entry.text in slots])
        return _rows([(entry, world[entry.text]) for entry in mine if entry.span == ROW])

    def _offer_epoch(
        self, plan: Plan, slots: dict[str, AnySlot], results: Results, hook: str, path: str, slot: AnySlot
    ) -> None:
        """Add a slot's epoch value to the plan; what one process logs alone is settled at once."""
        if slot.routing.solo:
            results.epochs[results.loader, hook, slot.routing.name, path] = Agreed(slot.routing, here=_alone(slot))
            return
        entry = Entry(EPOCH, results.loader, hook, path, "", _kind(slot), slot.routing)
        if isinstance(slot, Slot):
            share = slot.share()
            if share is None:
                return
            plan.number(entry, share)
        elif slot.seen:
            plan.metric(entry, slot.metric)
        else:
            return
        slots[entry.text] = slot

    def _install(self, results: Results, entry: Entry, slot: AnySlot | None, world: Mapping[str, Any]) -> None:
        """Keep one value of all processes."""
        if entry.span == STEP:
            agreed = results.steps.get(entry.key)
            if agreed is None:
                here = dict(slot.step_values()) if slot is not None else {}
                agreed = Agreed(entry.routing, {}, here, _last(slot) if slot is not None else ())
                results.steps[entry.key] = agreed
            agreed.everywhere[entry.member] = value_of(entry.kind, world[entry.text])
        elif entry.span == EPOCH and entry.kind in ("states", "own"):
            slot = self._borrow(results, entry) if slot is None else slot
            assert isinstance(slot, MetricSlot)
            here = _alone(slot) if entry.routing.sync is False or entry.kind == "own" else {}
            values = _computed(slot, entry, world) if entry.kind == "states" else {}
            results.epochs[entry.key] = Agreed(entry.routing, values, here)
        elif entry.span == EPOCH:
            here = dict(slot.epoch_values()) if slot is not None and entry.routing.sync is False else {}
            values = {entry.routing.name: value_of(entry.kind, world[entry.text])}
            results.epochs[entry.key] = Agreed(entry.routing, values, here)

    def _level(self, results: Results, entries: list[Entry]) -> None:
        """Make equal on all processes what metrics computed that synchronise themselves, or do not at all."""
        plan = Plan()
        for entry in entries:
            for name, value in results.epochs[entry.key].here.items():
                plan.number(replace(entry, member=name), share_of("mean", value, 1.0, value.dtype == torch.float64))
        for text, share in reduce_states(plan.specs, plan.states, self._group).items():
            entry = Entry.parse(text)
            if not entry.routing.group or dist.get_rank() in entry.routing.group:
                results.epochs[entry.key].everywhere[entry.member] = value_of("mean", share)

    def _borrow(self, results: Results, entry: Entry) -> MetricSlot:
        """Return a slot for a metric that only other processes have logged."""
        try:
            metric = self._module.get_submodule(entry.path) if self._module is not None else None
        except AttributeError:
            metric = None
        if metric is None:
            raise MisconfigurationException(
                f"the metric logged as {entry.routing.name or entry.path!r} in `{entry.hook}` of another process is no"
                " attribute of the module here: make it one, or log it on every process."
            )
        results.borrowed.append(metric)
        slot = MetricSlot(entry.routing, (), metric)
        slot.add(metric, 1)
        return slot

    def _places(self, results: Results) -> dict[int, str]:
        """Return where the metrics of slots are in the module, by the id of the slot."""
        metrics = [slot for _, slot in results.slots() if isinstance(slot, MetricSlot)]
        parts = self._module.named_modules() if metrics and self._module is not None else ()
        paths = {id(part): path for path, part in parts}
        return {id(slot): paths.get(id(slot.metric), f" {slot.routing.name}") for slot in metrics}

    # -- reading -------------------------------------------------------------------------------------------------------

    def values(self, results: Results) -> Iterator[tuple[Routing, str, Tensor | None, Tensor | None]]:
        """Yield routing, name, the value for monitors and the one for loggers, of the current loader's slots."""
        step, places = not results.on_epoch, self._places(results)
        known = results.steps if step else results.epochs
        left = {key: agreed for key, agreed in known.items() if key[0] == results.loader}
        for hook, slot in results.slots():
            r = slot.routing
            if not (r.on_step if step else r.on_epoch):
                continue
            agreed = left.pop((results.loader, hook, r.name, places.get(id(slot), "")), None)
            if agreed is not None and (not step or r.sync or _same(agreed.last, _last(slot))):
                yield from agreed.values(_shared(r, step))
            elif step or isinstance(slot, Slot):  # to compute a metric's epoch value may be a collective
                for name, value in slot.step_values() if step else slot.epoch_values():
                    yield r, name, None if r.solo else value, value
        for agreed in left.values():
            yield from agreed.values(_shared(agreed.routing, step))

    def hold(self, results: Results, step: int) -> set[str]:
        """Keep an evaluation's step values that are reduced, until `settle`; returns their names for loggers."""
        names = set()
        places = self._places(results)
        for hook, slot in results.slots():
            r = slot.routing
            if r.on_step and r.sync and r.logger and not r.solo:
                path = places.get(id(slot), "")
                for name, value in slot.step_values():
                    kind = slot.reduce if isinstance(slot, Slot) else "mean"
                    entry = Entry(ROW, results.loader, hook, path, name, kind, r)
                    results.held.setdefault(entry, []).append((step, value))
                    names.add(r.step_name(name) + r.label)
        return names


def ranks_of(group: Any) -> tuple[int, ...]:
    """Return the ranks of a process group, none for that of all processes."""
    if group is None or not dist.is_initialized() or group is dist.group.WORLD:
        return ()
    return tuple(dist.get_process_group_ranks(group))


def _shared(routing: Routing, step: bool) -> bool:
    """Tell whether loggers get the value of all processes."""
    return not routing.solo and (bool(routing.sync) if step else routing.sync is not False)


def _kind(slot: AnySlot) -> str:
    if isinstance(slot, Slot):
        return slot.reduce
    return "states" if isinstance(slot.metric, SyncableMetric) else "own"


def _offer_step(plan: Plan, slots: dict[str, AnySlot], results: Results, hook: str, path: str, slot: AnySlot) -> None:
    """Add what a slot says of the last step to the plan."""
    kind = slot.reduce if isinstance(slot, Slot) else "mean"
    for name, value in slot.step_values():
        entry = Entry(STEP, results.loader, hook, path, name, kind, slot.routing)
        plan.number(entry, share_of(kind, value, 1.0, value.dtype == torch.float64))
        slots[entry.text] = slot


def _computed(slot: MetricSlot, entry: Entry, world: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a metric computes from the states of all processes."""
    metric: Any = slot.metric
    with metric.synced({name: world[state_key(entry, name)] for name in metric.state_specs()}):
        return dict(slot.named(metric.compute()))


def _rows(columns: list[tuple[Entry, list[Tensor]]]) -> Rows:
    """Return rows of steps, given the columns' steps and shares of each process."""
    rows: Rows = {}
    for entry, parts in columns:
        shares: dict[int, list[Tensor]] = {}
        for line in torch.cat(parts):
            shares.setdefault(int(line[0]), []).append(line[1:])
        fold = {"min": torch.amin, "max": torch.amax}.get(entry.kind, torch.sum)
        name = entry.routing.step_name(entry.member) + entry.routing.label
        for step, found in shares.items():
            rows.setdefault(step, {})[name] = value_of(entry.kind, fold(torch.stack(found), 0))
    return dict(sorted(rows.items()))


def _last(slot: AnySlot) -> tuple[Any, ...]:
    """Return the objects that were logged last, which tell one step from the next."""
    value = slot.last if isinstance(slot, Slot) else batch_value(slot.metric) if slot.seen else None
    if value is None:
        return ()
    return tuple(value.values()) if isinstance(value, Mapping) else (value,)


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _alone(slot: AnySlot) -> dict[str, Tensor]:
    """Return the epoch values of this process alone, where the metric leaves the choice."""
    metric: Any = slot.metric if isinstance(slot, MetricSlot) else None
    if isinstance(metric, SyncableMetric):
        with metric.synced(metric.export_states()):
            return dict(slot.epoch_values())
    return dict(slot.epoch_values())
