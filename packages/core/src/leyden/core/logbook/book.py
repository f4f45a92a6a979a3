# SPDX-License-Identifier: Apache-2.0
"""LogBook: takes every `self.log`, and writes rows for the loggers, the progress bar and whoever monitors a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError
from leyden.core.interfaces import LoggerLike, MetricLike
from leyden.core.logbook.agreement import Agreement, ranks_of
from leyden.core.logbook.batch_size import BatchSize
from leyden.core.logbook.results import Results as Results
from leyden.core.logbook.rows import write_row, writer
from leyden.core.logbook.rules import resolve
from leyden.core.logbook.slot import (
    ADD_INDEX,
    GROUP,
    LOGGER,
    ON_EPOCH,
    ON_STEP,
    PROG_BAR,
    RANK_ZERO_ONLY,
    REDUCE_FX,
    SYNC_DIST,
    AnySlot,
    Flags,
    MetricSlot,
    Routing,
    Slot,
    check_value,
    reduction,
)
from leyden.core.observers import Observers

Values = dict[str, Tensor]


class LogBook:
    """Everything that is logged during a run.

    A call of `self.log` finds its slot by the running hook and the name and appends to it. At a boundary the slots
    become values: ``callback_metrics`` for monitors, a row for the loggers, numbers for the progress bar.

    With several processes `agree`, `end_batches` and `step_row` are collectives: every process enters them at the same
    places of the loop, whatever it has logged. Everything that reads is none, and may be called by one process alone.

    Args:
        module: The module whose metrics may be logged.
        loggers: Where rows go.
        group: The processes that values are reduced over; None for all.
        world_size: How many they are.
        observers: What lets loggers fail; None where their errors are to be raised.

    Attributes:
        world_size: How many processes values are reduced over.
        evaluated: Batches that evaluation has seen in this run, by stage and loader: the x axis of its step values.
    """

    def __init__(
        self,
        module: nn.Module | None = None,
        loggers: Sequence[LoggerLike] = (),
        group: Any = None,
        world_size: int = 1,
        observers: Observers | None = None,
    ) -> None:
        self._module, self._loggers = module, loggers
        self.world_size = world_size
        self._agreement = Agreement(module, group) if world_size > 1 else None
        self.enabled = True
        self.hook: str | None = None
        self.batch: Any = None
        self.results: Results | None = None
        self._outer: list[Results | None] = []
        self._sizes = BatchSize()
        self.evaluated: dict[tuple[str, int], int] = {}
        self._monitored: Values = {}
        self._logged: Values = {}
        self._shown: Values = {}
        observers = observers or Observers(strict=True)
        self._writers = [writer(logger, observers) for logger in loggers]

    # -- which hook and which stage ------------------------------------------------------------------------------------

    def enter(self, hook: str) -> str | None:
        """Begin a hook; returns the one to go back to."""
        before, self.hook = self.hook, hook
        return before

    def leave(self, hook: str | None) -> None:
        """Go back to an earlier hook."""
        self.hook = hook

    def rest(self) -> Any:
        """Forget the last step's values, for a step without a batch; returns the last batch."""
        if self.results is not None:
            for _, slot in self.results.slots():
                if isinstance(slot, Slot):
                    slot.last = None
        return self.batch

    def begin(self, results: Results) -> None:
        """Make a stage current, inside the one that is current now."""
        self._outer.append(self.results)
        self.results = results
        self._sizes = BatchSize()

    def end(self) -> None:
        """Go back to the stage around the current one."""
        self.results = self._outer.pop()
        self._sizes = BatchSize()

    def reset(self) -> None:
        """Forget every published value."""
        self._monitored, self._logged, self._shown = {}, {}, {}

    def close(self) -> None:
        """Drop what belongs to the run that ends; published values stay readable, on the CPU."""
        self.results, self.batch, self.hook, self._outer = None, None, None, []
        for values in (self._monitored, self._logged, self._shown):
            values.update({k: v.cpu() for k, v in values.items()})

    # -- self.log ------------------------------------------------------------------------------------------------------

    def log(self, name: str, value: Any, flags: Flags, batch_size: int | None, attribute: str | None) -> None:
        """Take one value. See `LightningModule.log`."""
        results = self.results
        table = results.tables.get(self.hook) if results is not None else None  # type: ignore[arg-type]
        # a group of metrics has no name of its own, so the object stands for it
        slot = table.get(name or id(value)) if table is not None else None
        if slot is None or slot.flags != flags:
            slot = self._slot(name, value, flags, attribute)
            if slot is None:
                return
        if (
            not (isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point())
            and slot.reduce != "metric"
        ):
            check_value(name, value)
        if slot.weighted:
            slot.add(
                value,
                batch_size if batch_size is not None else self._sizes.of(self.batch) if self.batch is not None else 1,
            )
        else:
            slot.add(value, 1)

    def _slot(self, name: str, value: Any, flags: Flags, attribute: str | None) -> AnySlot | None:
        """Resolve the flags of a name that this hook logs for the first time."""
        hook, results = self.hook, self.results
        if not self.enabled:
            return None
        if results is None and (hook is None or "predict" not in hook):
            resolve(None if hook is None else hook, None, None)
        if results is None:
            raise MisconfigurationException(
                "You are trying to `self.log()` but the loop's result collection is not registered yet. This is"
                " most likely"
                " because you are trying to log in a `predict` hook, but it doesn't support logging"
            )
        on_step, on_epoch = resolve(hook, flags[ON_STEP], flags[ON_EPOCH])
        assert hook is not None
        if not isinstance(name, str):
            raise MisconfigurationTypeError(f"`self.log` takes a str as the name of a value; got {name!r}.")
        if "/dataloader_idx_" in name:
            raise MisconfigurationException(
                f"You called `self.log` with the key `{name}` but it should not contain information like"
                " `/dataloader_idx_`"
            )
        key = name or id(value)
        known = results.tables.get(hook, {}).get(key)
        if known is not None and known.flags is None:
            known.flags = flags
            return known
        if known is not None:
            raise MisconfigurationException(
                f"You called `self.log({name}, ...)` twice in `{hook}` with different arguments. This is not allowed"
            )
        suffix, label = results.endings(flags[ADD_INDEX])
        sync = None if flags[SYNC_DIST] is None else bool(flags[SYNC_DIST])
        if getattr(value, "sync_on_compute", True) is False:  # a metric that was told to stay what this process saw
            sync = False
        routing = Routing(
            name,
            suffix,
            on_step,
            on_epoch,
            bool(flags[PROG_BAR]),
            flags[LOGGER] is not False,
            label,
            sync,
            bool(flags[RANK_ZERO_ONLY]),
            ranks_of(flags[GROUP]),
        )
        slot: AnySlot
        if isinstance(value, MetricLike):
            self._check_metric(name, value, attribute)
            slot = MetricSlot(routing, flags, value)
        else:
            check_value(name, value)
            slot = Slot(routing, flags, reduction(flags[REDUCE_FX]))
        results.tables.setdefault(hook, {})[key] = slot
        return slot

    def _check_metric(self, name: str, metric: Any, attribute: str | None) -> None:
        module = self._module
        if name and isinstance(metric, nn.ModuleDict):
            raise ValueError(
                f"`self.log({name}, {metric})` was called, but `{type(metric).__name__}` values cannot be logged: a"
                " collection names its own values, use `self.log_dict`."
            )
        if attribute is not None or not isinstance(metric, nn.Module) or module is None:
            return
        if not any(m is metric for m in module.modules()):
            raise MisconfigurationException(
                f"Could not find the `LightningModule` attribute for the metric logged as {name!r}. You can fix"
                " this by setting"
                " an attribute for the metric in your `LightningModule`."
            )

    # -- boundaries ----------------------------------------------------------------------------------------------------

    def _values(self, results: Results) -> Iterator[tuple[Routing, str, Tensor | None, Tensor | None]]:
        """Yield routing, name, the value for monitors and the one for loggers."""
        if self._agreement is not None:
            yield from self._agreement.values(results)
            return
        step = not results.on_epoch
        for _, slot in results.slots():
            r = slot.routing
            if r.on_step if step else r.on_epoch:
                for name, value in slot.step_values() if step else slot.epoch_values():
                    yield r, name, value, value

    def publish(self) -> tuple[Values, Values]:
        """Bring the current stage's values to where they are read: step values during the batches, epoch values after.

        This process does it alone: with several, its own values stand in for those that are not agreed on yet.

        Returns:
            The values for results, and those for loggers.
        """
        reported: Values = {}
        logged: Values = {}
        results = self.results
        if results is None:
            return reported, logged
        step = not results.on_epoch
        for r, name, everywhere, here in self._values(results):
            full = r.step_name(name) if step else r.epoch_name(name)
            if r.logger:
                if here is not None:
                    logged[full + r.label] = here
                found = everywhere if everywhere is not None else here
                if found is not None:
                    reported[full + r.suffix] = found
            if everywhere is not None and (results.training or not step):
                for ending in {r.suffix, r.label}:
                    self._monitored[name + ending] = everywhere
                    self._monitored[full + ending] = everywhere
            if r.prog_bar and here is not None:
                self._shown[full + r.label] = here
        self._logged.update(logged)
        return reported, logged

    def agree(self) -> tuple[Values, Values]:
        """Reduce over processes what can be monitored now, and publish it: step values, or the epoch's new values.

        Whoever lets a value steer (a checkpoint, a stop, a learning rate) asks for this first, on every process.

        Returns:
            The values for results, and those for loggers.
        """
        results = self.results
        if self._agreement is not None and results is not None:
            for step, values in self._agreement.settle(results, epoch=results.on_epoch).items():
                self.write(values, step, None)
        return self.publish()

    def end_batches(self) -> tuple[Values, Values]:
        """Publish the last step's values and then, as the stage's batches are over, those of the epoch.

        Returns:
            The epoch's values for results, and those for loggers.
        """
        results = self.results
        if results is None:
            return {}, {}
        if self._agreement is None:
            self.publish()
            results.on_epoch = True
            return self.publish()
        rows = self._agreement.settle(results, epoch=True)
        self.publish()
        results.on_epoch = True
        for step, values in rows.items():
            self.write(values, step, None)
        return self.publish()

    def step_row(self, step: int, epoch: int | None) -> None:
        """Write the step values of the current stage as one row.

        With several processes, those of training are reduced first if any is logged with ``sync_dist=True``. Those of
        an evaluation, which may have more batches on one process than on another, are written at the end of its loader.
        """
        agreement, results, held = self._agreement, self.results, set[str]()
        if agreement is not None and results is not None:
            if not results.training:
                held = agreement.hold(results, step)
            elif agreement.rows_meet is not False:
                agreement.settle(results, epoch=False)
        if self._loggers:
            values = self.publish()[1]
            self.write({name: value for name, value in values.items() if name not in held}, step, epoch)

    def write(self, values: Values, step: int, epoch: int | None) -> None:
        """Write one row to every logger, with the epoch unless it is None."""
        write_row(self._writers, values, step, epoch)

    # -- what users and monitors read ----------------------------------------------------------------------------------

    @property
    def callback_metrics(self) -> Values:
        """Values that callbacks monitor, by name."""
        self.publish()
        return self._monitored

    @property
    def logged_metrics(self) -> Values:
        """Values that went to the loggers, by name."""
        self.publish()
        return dict(self._logged)

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """Numbers that the progress bar shows, by name."""
        self.publish()
        if not self._shown:
            return {}
        return {name: float(value) for name, value in self._shown.items()}

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self, training: Results) -> dict[str, Any]:
        """Return the published values and the open slots of training, as tensors and plain data.

        The slots hold what this process has logged, also where there are several: each must get its own back.
        """
        slots = [
            {"hook": hook, "routing": asdict(slot.routing), "reduce": slot.reduce, **slot.state_dict()}
            for hook, slot in training.slots()
            if isinstance(slot, Slot)
        ]
        published = (("monitored", self._monitored), ("logged", self._logged), ("shown", self._shown))
        values = {name: {k: v.cpu() for k, v in values.items()} for name, values in published}
        return {**values, "slots": slots, "on_epoch": training.on_epoch}

    def load_state_dict(self, state: dict[str, Any], training: Results) -> None:
        """Take over published values and open slots; a slot's flags are taken from the next `self.log` of its name."""
        self._monitored, self._logged, self._shown = (dict(state[k]) for k in ("monitored", "logged", "shown"))
        training.on_epoch = state["on_epoch"]
        for entry in state["slots"]:
            slot = Slot(Routing(**entry["routing"]), None, entry["reduce"])
            slot.load_state_dict(entry)
            training.tables.setdefault(entry["hook"], {})[slot.routing.name] = slot
