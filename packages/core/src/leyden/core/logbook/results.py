# SPDX-License-Identifier: Apache-2.0
"""What one stage logs: its slots by loader and hook, and with several processes what these agreed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from leyden.core.logbook.slot import AnySlot, Routing

Table = dict[str | int, AnySlot]
Key = tuple[int | None, str, str, str]  # loader, hook, name, and where a metric is in the module


@dataclass(frozen=True, slots=True)
class Agreed:
    """One slot's values, as several processes know them.

    Attributes:
        routing: Where they go.
        everywhere: The values of all processes together, by name.
        here: This process's own values, for loggers and bar where these do not get those of all.
        last: What this process had logged last; something else since means that ``everywhere`` is of an earlier step.
    """

    routing: Routing
    everywhere: dict[str, Tensor] = field(default_factory=dict)
    here: dict[str, Tensor] = field(default_factory=dict)
    last: tuple[Any, ...] = ()

    def values(self, shared: bool) -> Iterator[tuple[Routing, str, Tensor | None, Tensor | None]]:
        """Yield routing, name, the value for monitors and the one for loggers, the same if ``shared``."""
        for name in self.everywhere | self.here:
            value = self.everywhere.get(name)
            yield self.routing, name, value, value if shared else self.here.get(name)


class Results:
    """The slots of one stage (training, validation, ...): one table per hook, and one set of tables per loader.

    Args:
        training: Whether the stage is training: its step values can be monitored.
        loaders: The names of the loaders that the stage goes through, None for one without a name.

    Attributes:
        steps: With several processes, the step values that they agreed on last.
        epochs: With several processes, the epoch values that they agreed on: these are final until `clear`.
        borrowed: Metrics that were computed here because another process logged them.
        held: Step values of an evaluation that wait for its end, when they are reduced over processes and written.
    """

    def __init__(self, *, training: bool = False, loaders: Sequence[str | None] = (None,)) -> None:
        self.training, self.loaders = training, loaders
        self.by_loader: dict[int | None, dict[str, Table]] = {}
        self.loader: int | None = None
        self.tables = self.select(None)
        self.on_epoch = False
        self.steps: dict[Key, Agreed] = {}
        self.epochs: dict[Key, Agreed] = {}
        self.borrowed: list[Any] = []
        self.held: dict[Any, list[tuple[int, Tensor]]] = {}

    def select(self, loader: int | None) -> dict[str, Table]:
        """Make the tables of one loader current; None stands for what belongs to no loader."""
        self.loader = loader
        self.tables = self.by_loader.setdefault(loader, {})
        return self.tables

    def endings(self, add_index: bool) -> tuple[str, str]:
        """Return what follows a name logged for the current loader: in results, and in loggers and bar."""
        if not add_index or self.loader is None or len(self.loaders) == 1:
            return "", ""
        index, name = f"/dataloader_idx_{self.loader}", self.loaders[self.loader]
        # a name that several loaders share tells none of them
        return index, index if name is None or self.loaders.count(name) > 1 else f"/{name}"

    def slots(self) -> Iterator[tuple[str, AnySlot]]:
        """Yield the current loader's slots with the hook that made them."""
        for hook, table in self.tables.items():
            for slot in table.values():
                yield hook, slot

    def clear(self) -> None:
        """Forget all values; the slots stay."""
        for tables in self.by_loader.values():
            for table in tables.values():
                for slot in table.values():
                    slot.clear()
        for metric in self.borrowed:
            metric.reset()
        self.steps, self.epochs, self.borrowed, self.held = {}, {}, [], {}
