# SPDX-License-Identifier: Apache-2.0
"""Rows on their way to the loggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType

import torch
from torch import Tensor

from leyden.core.interfaces import LoggerLike
from leyden.core.observers import Observers

Write = Callable[[list[str], Tensor, int], None]


def writer(logger: LoggerLike, observers: Observers) -> Write:
    """Return what takes a row to a logger: its ``log_rows``, or ``log_metrics`` where only that was overridden."""
    both = {"log_rows", "log_metrics"}
    kinds: list[Mapping[str, object]] = [vars(kind) for kind in type(logger).__mro__]
    nearest = next((members for members in kinds if both & members.keys()), {})
    replaced = "log_metrics" in getattr(logger, "__dict__", {})  # a mock, mostly
    if "log_rows" in nearest and not replaced and isinstance(nearest.get("log_metrics", writer), FunctionType):
        rows: Write = logger.log_rows  # type: ignore[attr-defined]
        return observers.logger(logger, "log_rows", rows)

    def log(metrics: dict[str, float], step: int) -> None:
        logger.log_metrics(metrics=metrics, step=step)

    # the wait for the device stays outside: what fails there is no failure of the logger
    harmless = observers.logger(logger, "log_metrics", log)
    return lambda names, stacked, step: harmless(dict(zip(names, stacked.tolist(), strict=True)), step)


def write_row(writers: Sequence[Write], values: Mapping[str, Tensor], step: int, epoch: int | None) -> None:
    """Write one row: its values in one stacked tensor, and the epoch unless it is None.

    A value called ``step`` is the row's place on the x axis.
    """
    chosen = values.get("step")
    if chosen is not None:
        values = {name: value for name, value in values.items() if name != "step"}
        step, epoch = int(chosen), None
    if not values:
        return
    names, tensors = list(values), list(values.values())
    if "epoch" not in values and epoch is not None:
        names.append("epoch")
        tensors.append(torch.tensor(float(epoch)))
    device = tensors[0].device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    stacked = torch.stack([t.detach().to(device, dtype) for t in tensors])
    for write in writers:
        write(names, stacked, step)
