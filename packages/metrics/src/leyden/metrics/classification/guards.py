# SPDX-License-Identifier: Apache-2.0
"""Deferred validation: the range of everything seen, kept on the device and judged in ``compute``.

Two reductions per batch say whether any value was out of range and which; nothing waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from leyden.metrics.errors import MetricValueError
from leyden.metrics.states import StateSpec, Store, neutral_of

NOT_WHOLE = 2**31
"""Stands for a label that is no whole number, such as 0.5 or NaN."""


def add_range(store: Store, name: str, dtype: torch.dtype) -> None:
    """Add the states ``{name}_low`` and ``{name}_high``."""
    for end, reduction in (("low", "min"), ("high", "max")):
        neutral = neutral_of(reduction, dtype)  # type: ignore[arg-type]
        spec = StateSpec(f"{name}_{end}", reduction, dtype, (), neutral)  # type: ignore[arg-type]
        store.add(spec, torch.tensor(neutral, dtype=dtype), constant=True)


def widen(values: dict[str, Any], name: str, seen: Tensor) -> None:
    """Widen a range by the values of a tensor that is not empty. NaN spreads to both ends."""
    low, high = seen.aminmax()
    values[f"{name}_low"] = torch.minimum(values[f"{name}_low"], low)
    values[f"{name}_high"] = torch.maximum(values[f"{name}_high"], high)


def whole(labels: Tensor) -> Tensor:
    """Return labels as integers."""
    if not labels.is_floating_point():
        return labels.long()
    numbers = labels.long()
    return numbers.masked_fill(numbers != labels, NOT_WHOLE)


def check_labels(metric: str, argument: str, low: float, high: float, classes: int, ignore_index: int | None) -> None:
    """Raise if a range of labels is not within ``0 .. classes - 1``."""
    if low > high or (low >= 0 and high < classes):
        return
    found = low if low < 0 else high
    shown = "a label that is no whole number" if found == NOT_WHOLE else f"the label {int(found)}"
    besides = "" if ignore_index is None or argument != "target" else f", or ignore_index={ignore_index}"
    raise MetricValueError(f"{metric} was given {shown} in `{argument}`; it must be from 0 to {classes - 1}{besides}")


def check_scores(metric: str, low: float, high: float, probabilities: bool) -> None:
    """Raise if scores hold NaN, or are no probabilities where the metric was told so."""
    if math.isnan(low) or math.isnan(high):
        raise MetricValueError(f"{metric} was given nan in `preds`; every score must be a number")
    if probabilities and low <= high and (low < 0 or high > 1):
        found = low if low < 0 else high
        raise MetricValueError(
            f"{metric} was given {found:g} in `preds`, but input='probs' needs values from 0 to 1; "
            "use input='logits' for raw scores"
        )
