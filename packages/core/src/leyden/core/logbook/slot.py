# SPDX-License-Identifier: Apache-2.0
"""One logged name: what was logged last, and what the epoch adds up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationException, warn

BLOCK = 64
Flags = tuple[Any, ...]
# the order in which LightningModule.log hands its arguments over
PROG_BAR, LOGGER, ON_STEP, ON_EPOCH, REDUCE_FX, ENABLE_GRAPH, SYNC_DIST, ADD_INDEX, RANK_ZERO_ONLY, GROUP = range(10)


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a slot's values go.

    Attributes:
        name: The name that was given to `self.log`.
        suffix: ``/dataloader_idx_i`` where several loaders are evaluated, else empty: the end of keys in results.
        label: The same for loggers and bar, which see ``/name`` of a loader that has a name.
        on_step: Whether it has a value at each step.
        on_epoch: Whether it has a value over the epoch.
        prog_bar: Whether the progress bar shows it.
        logger: Whether the loggers get it.
        sync: What was given as ``sync_dist``; None stands for True over the epoch and False at steps.
        solo: Whether only the first process logs it.
        group: The processes that it is reduced over, by their ranks; empty for all.
    """

    name: str
    suffix: str
    on_step: bool
    on_epoch: bool
    prog_bar: bool
    logger: bool
    label: str = ""
    sync: bool | None = None
    solo: bool = False
    group: tuple[int, ...] = ()

    def step_name(self, name: str) -> str:
        """Return the name of a step value, still without its loader."""
        return f"{name}_step" if self.on_epoch else name

    def epoch_name(self, name: str) -> str:
        """Return the name of an epoch value, still without its loader."""
        return f"{name}_epoch" if self.on_step else name


class Slot:
    """The values logged under one name in one hook.

    Adding a value costs a detached copy and two list appends: values are stacked and folded a block at a time, and
    nothing waits for the device.
    """

    __slots__ = (
        "_count",
        "_total",
        "_values",
        "_weights",
        "flags",
        "keeps_graph",
        "last",
        "reduce",
        "routing",
        "weighted",
    )

    def __init__(self, routing: Routing, flags: Flags | None, reduce: str) -> None:
        self.routing, self.flags, self.reduce = routing, flags, reduce
        self.keeps_graph = flags is not None and flags[ENABLE_GRAPH]
        self.weighted = reduce == "mean" and routing.on_epoch
        self.clear()

    def clear(self) -> None:
        """Forget every value."""
        self.last: Tensor | float | None = None
        self._values: list[Tensor | float] = []
        self._weights: list[float] = []
        self._total: Tensor | None = None
        self._count = 0.0

    def add(self, value: Any, weight: float) -> None:
        """Take one value. A tensor is copied: it may be a view of something large, or change later."""
        if isinstance(value, Tensor):
            if value.dim():
                value = value.reshape(())
            if not value.is_floating_point():
                value = value.to(torch.get_default_dtype())
            value = value.clone() if self.keeps_graph else value.detach().clone()
        else:
            value = float(value)
        self.last = value
        if self.routing.on_epoch:
            self._values.append(value)
            self._weights.append(weight)
            if len(self._values) >= BLOCK:
                self._fold()

    def _fold(self) -> None:
        values, weights = self._values, self._weights
        if not values:
            return
        self._values, self._weights = [], []
        tensors = [v for v in values if isinstance(v, Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        wide = torch.float32 if device.type == "mps" else torch.float64
        if len(tensors) == len(values):
            stacked = torch.stack([t.to(device) for t in tensors]).to(wide)
        else:
            parts = [
                v.to(device, wide) if isinstance(v, Tensor) else torch.tensor(v, dtype=wide, device=device)
                for v in values
            ]
            stacked = torch.stack(parts)
        if self.reduce == "mean":
            first = weights[0]
            if all(w == first for w in weights):
                block = stacked.sum() * first
            else:
                block = (stacked * torch.tensor(weights, dtype=wide, device=device)).sum()
            self._count += sum(weights)
        elif self.reduce == "sum":
            block = stacked.sum()
        else:
            block = stacked.amin() if self.reduce == "min" else stacked.amax()
        self._total = block if self._total is None else self._combine(self._total.to(device), block)

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        if self.reduce == "min":
            return torch.minimum(a, b)
        if self.reduce == "max":
            return torch.maximum(a, b)
        return a + b

    def step_values(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and value of the last step."""
        last = self.last
        if last is not None:
            value = last if isinstance(last, Tensor) else torch.tensor(last)
            yield self.routing.name, value.to(torch.promote_types(torch.get_default_dtype(), value.dtype))

    def epoch_values(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the value of everything since the last `clear`."""
        self._fold()
        if self._total is not None:
            total = self._total
            if self.reduce == "mean":
                total = total / self._count if self._count else total * torch.nan
            dtype = torch.get_default_dtype()
            if isinstance(self.last, Tensor):
                dtype = torch.promote_types(dtype, self.last.dtype)
            yield self.routing.name, total.to(dtype)

    def share(self) -> Tensor | None:
        """Return what this process adds to a value of all processes, None if nothing was logged; see `value_of`."""
        self._fold()
        if self._total is None:
            return None
        double = isinstance(self.last, Tensor) and self.last.dtype == torch.float64
        return share_of(self.reduce, self._total, self._count, double)

    def state_dict(self) -> dict[str, Any]:
        """Return the open values as plain data and tensors."""
        self._fold()
        return {"last": self.last, "total": self._total, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over open values."""
        self.clear()
        self.last, self._total, self._count = state["last"], state["total"], state["count"]


def share_of(reduce: str, total: Tensor, weight: float, double: bool) -> Tensor:
    """Return a value as three numbers that processes reduce: it, its weight, and whether it is of double precision.

    Args:
        reduce: How values become one; anything but ``"sum"``, ``"min"`` and ``"max"`` is a mean.
        total: The value; for a mean, times its weight.
        weight: The weight.
        double: Whether the value stays in double precision.
    """
    sign = -1.0 if reduce == "min" else 1.0  # so that whoever has the larger one prevails
    marks = torch.tensor([sign * weight, sign * double], dtype=torch.float64)
    return torch.cat([total.detach().cpu().double().reshape(1), marks])


def value_of(reduce: str, share: Tensor) -> Tensor:
    """Return the value that the reduced three numbers of `share_of` stand for."""
    total: Tensor
    total, weight, double = share
    if reduce not in ("sum", "min", "max"):
        total = total / weight if weight else total * torch.nan
    return total.to(torch.float64 if double else torch.get_default_dtype())


def batch_value(metric: Any) -> Any:
    """Return what a metric says of its last batch, a dict for a collection; None if it was only updated."""
    for attribute in ("batch_value", "_forward_cache"):
        value = getattr(metric, attribute, None)
        if value is not None:
            return value
    if not isinstance(metric, nn.ModuleDict):
        return None
    # a collection that keeps no value of its own: its items name themselves, prefix and postfix included
    values = {name: batch_value(item) for name, item in metric.items()}
    return None if None in values.values() else values


class MetricSlot:
    """A metric object logged under one name, or a group of them that names its own values."""

    __slots__ = ("flags", "group", "metric", "reduce", "routing", "seen", "weighted")

    def __init__(self, routing: Routing, flags: Flags, metric: Any) -> None:
        self.routing, self.metric = routing, metric
        self.flags: Flags | None = flags
        self.group = routing.name == ""
        self.weighted, self.reduce = False, "metric"
        self.seen = False

    def clear(self) -> None:
        """Reset the metric."""
        if self.seen:
            self.metric.reset()
        self.seen = False

    def add(self, value: Any, weight: float) -> None:
        """Note that the metric was logged; it keeps its own state."""
        if value is not self.metric:
            raise MisconfigurationException(
                f"You called `self.log({self.routing.name!r}, ...)` twice in one hook with different metrics: give"
                " each a name."
            )
        self.seen = True

    def step_values(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the values of the metric for its last batch."""
        if not self.seen:
            return
        value = batch_value(self.metric)
        if value is None:
            what = f"self.log({self.routing.name!r}, metric" if self.routing.name else "self.log_dict(metrics"
            raise MisconfigurationException(
                f"`{what}, on_step=True)` needs the metric's value for the batch: call"
                " `metric(...)` instead of `metric.update(...)`."
            )
        yield from self.named(value)

    def epoch_values(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the values of the metric over everything that it saw."""
        if self.seen:
            yield from self.named(self.metric.compute())

    def named(self, value: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield a computed value under its name, or those of a group under theirs."""
        items = value.items() if self.group else ((self.routing.name, value),)
        for name, item in items:
            tensor = item if isinstance(item, Tensor) else torch.as_tensor(item)
            if tensor.numel() != 1:
                raise MisconfigurationException(
                    f"`self.log({name!r}, metric)` needs a metric with a single value; it computed a tensor of shape"
                    f" {tuple(tensor.shape)}. Log its elements by name with `self.log_dict`."
                )
            yield name, tensor.detach().reshape(())

    def state_dict(self) -> dict[str, Any]:
        """Return whether the metric was logged since the last reset."""
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over whether the metric was logged."""
        self.seen = state["seen"]


AnySlot = Slot | MetricSlot
_REDUCTIONS: dict[Any, str] = {
    "mean": "mean", "avg": "mean", "sum": "sum", "min": "min", "max": "max",
    torch.mean: "mean", torch.sum: "sum", torch.min: "min", torch.max: "max", torch.amin: "min", torch.amax: "max",
    min: "min", max: "max", sum: "sum",
}  # fmt: skip


def reduction(reduce_fx: str | Callable[..., Any]) -> str:
    """Return the name of a reduction given by name or function.

    Raises:
        MisconfigurationException: It is none of mean, sum, min and max.
    """
    found = _REDUCTIONS.get(reduce_fx.lower() if isinstance(reduce_fx, str) else reduce_fx)
    if found is None:
        raise MisconfigurationException(
            "Only `self.log(..., reduce_fx={min,max,mean,sum})` are supported. If you need a custom reduction,"
            " please log a"
            f" metric object instead. Found: {reduce_fx}"
        )
    return found


def check_value(name: str, value: Any) -> None:
    """Refuse what is no single number.

    Raises:
        ValueError: The value is a text, a collection, or a tensor with several elements.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"`self.log({name}, {value})` was called, but the tensor must have a single element. You can try doing"
                f" `self.log({name}, {value}.mean())`"
            )
        if not torch.is_floating_point(value):
            warn(
                "LY-B003",
                f"You called `self.log({name!r}, ...)` in your module but the value needs to be floating to be reduced."
                " Converting it to torch.float32. You can silence this warning by converting the value to floating"
                " point yourself.",
            )
    elif isinstance(value, dict):
        raise ValueError(f"`self.log({name}, {value})` was called, but nested dictionaries cannot be logged")
    elif not isinstance(value, Real):
        raise ValueError(
            f"`self.log({name}, {value})` was called, but `{type(value).__name__}` values cannot be logged"
        )
