# SPDX-License-Identifier: Apache-2.0
"""One row on its way to the writer: the training thread neither waits for a device nor converts numbers."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError

# Names that were found good, and the types that need no conversion: a row of plain floats is looked at in C only.
_CHECKED: set[str] = set()
_NUMBERS = {float, int}


class Row(NamedTuple):
    """The values of one step.

    Attributes:
        step: Position on the x axis.
        time: Wall time in seconds since the epoch.
        names: Names of the values.
        values: One 1-D tensor on the host, or a list of numbers and 0-dim tensors on the host.
        ready: Events to wait for before ``values`` may be read: copies from a device that are still under way.
    """

    step: int
    time: float
    names: Sequence[str]
    values: Tensor | list[float | Tensor]
    ready: tuple[torch.Event, ...]

    def items(self) -> Iterable[tuple[str, float]]:
        """Return names with plain numbers. Waits for the copies: called by the writer, never by the training thread."""
        for event in self.ready:
            event.synchronize()
        if isinstance(self.values, Tensor):
            return zip(self.names, self.values.tolist(), strict=True)
        numbers = (value.item() if isinstance(value, Tensor) else value for value in self.values)
        return zip(self.names, numbers, strict=True)


def to_host(tensor: Tensor) -> tuple[Tensor, tuple[torch.Event, ...]]:
    """Start the copy of a device tensor into pinned memory.

    Args:
        tensor: A tensor that is not on the host.

    Returns:
        The tensor on the host, and the event after which it may be read. A device that is not PyTorch's accelerator
        has no events: there the copy is waited for.
    """
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or accelerator.type != tensor.device.type:
        return tensor.detach().cpu(), ()
    host = tensor.detach().to("cpu", non_blocking=True)
    event = torch.Event(tensor.device)
    event.record(torch.accelerator.current_stream(tensor.device))
    return host, (event,)


def row_of_stack(names: Sequence[str], stacked: Tensor, step: int) -> Row:
    """Make a row of one stacked tensor.

    Args:
        names: The names.
        stacked: The values, of shape ``(len(names),)``.
        step: The row's step.

    Returns:
        The row.

    Raises:
        MisconfigurationValueError: If ``stacked`` does not have one value per name.
    """
    if stacked.ndim != 1 or stacked.shape[0] != len(names):
        raise MisconfigurationValueError(
            f"stacked must be 1-D with one value per name; got shape {tuple(stacked.shape)} for {len(names)} names"
        )
    if stacked.device.type == "cpu":
        return Row(step, time.time(), names, stacked.detach() if stacked.requires_grad else stacked, ())
    host, ready = to_host(stacked)
    return Row(step, time.time(), names, host, ready)


def row_of_metrics(metrics: Mapping[str, Any], step: int) -> Row:
    """Make a row of a dict that a user wrote, and refuse what is not a number.

    Args:
        metrics: Numbers, or tensors of one element, by name.
        step: The row's step.

    Returns:
        The row.

    Raises:
        MisconfigurationTypeError: If it is no mapping, a name is not a string, or a value is not a number.
        MisconfigurationValueError: If a name is empty or holds a line break, or a tensor has more than one element.
    """
    if not isinstance(metrics, Mapping):
        raise MisconfigurationTypeError(f"metrics must be a mapping of names to numbers; got {type(metrics).__name__}")
    if not _CHECKED.issuperset(metrics):
        for name in metrics:
            check_name(name)
        _CHECKED.update(metrics)
    if _NUMBERS.issuperset(map(type, metrics.values())):
        return Row(as_step(step), time.time(), list(metrics), list(metrics.values()), ())
    values: list[float | Tensor] = []
    events: list[torch.Event] = []
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.device.type != "cpu" and value.numel() == 1:
            host, ready = to_host(value)
            values.append(host)
            events += ready
        else:
            values.append(as_number(name, value))
    return Row(as_step(step), time.time(), list(metrics), values, tuple(events))


def check_name(name: Any) -> None:
    """Refuse what can not name a metric.

    Args:
        name: What stands as a key of the metrics.

    Raises:
        MisconfigurationTypeError: If it is not a string.
        MisconfigurationValueError: If it is empty or holds a line break.
    """
    if not isinstance(name, str):
        raise MisconfigurationTypeError(f"a metric's name must be a string; got {_short(name)} ({type(name).__name__})")
    if not name or "\n" in name or "\r" in name:
        raise MisconfigurationValueError(f"a metric's name must not be empty or hold a line break; got {name!r}")


def as_number(name: str, value: Any) -> float:
    """Return a metric's value as a plain number.

    Args:
        name: Name of the metric, for the message.
        value: A number, or a tensor or array of one element.

    Returns:
        An int if the value is one, else a float.

    Raises:
        MisconfigurationTypeError: If the value is no number.
        MisconfigurationValueError: If the value has more than one element.
    """
    if type(value) in _NUMBERS:
        return cast(float, value)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        elements = value.numel() if isinstance(value, Tensor) else value.size
        if elements != 1:
            raise MisconfigurationValueError(
                f"metrics[{name!r}] must be one number; got a {type(value).__name__} of shape {tuple(value.shape)}. "
                "Reduce it first, for example with .mean()"
            )
        value = value.item()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise MisconfigurationTypeError(
        f"metrics[{name!r}] must be a number or a tensor of one element; got {_short(value)} ({type(value).__name__})"
    )


def _short(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001 - a repr that fails must not hide the message it is for
        return "a value"


def as_step(step: Any) -> int:
    """Return a step as a plain integer.

    Args:
        step: Any integer, also a tensor or NumPy scalar; a float that is whole.

    Returns:
        The integer.

    Raises:
        MisconfigurationTypeError: If it is none.
    """
    if isinstance(step, float) and step.is_integer():
        return int(step)
    try:
        return operator.index(step)
    except TypeError:
        raise MisconfigurationTypeError(
            f"step must be an integer; got {_short(step)} ({type(step).__name__})"
        ) from None
