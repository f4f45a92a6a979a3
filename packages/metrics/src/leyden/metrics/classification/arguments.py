# SPDX-License-Identifier: Apache-2.0
"""The arguments that classification metrics share, and the rules for them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from leyden.metrics.errors import MetricValueError

Average: TypeAlias = Literal["micro", "macro", "weighted", "none"] | None
MultidimAverage: TypeAlias = Literal["global", "samplewise"]
Normalize: TypeAlias = Literal["true", "pred", "all", "none"] | None
Input: TypeAlias = Literal["auto", "probs", "logits"]
Task: TypeAlias = Literal["binary", "multiclass", "multilabel"]


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise unless the argument is one of the allowed values."""
    if value not in allowed:
        raise MetricValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def check_average(value: Any) -> None:
    """Raise unless the argument names an average."""
    check_choice("average", value, ("micro", "macro", "weighted", "none", None))


def check_threshold(value: Any) -> None:
    """Raise unless the argument is a probability."""
    if not isinstance(value, float) or not 0.0 <= value <= 1.0:
        raise MetricValueError(f"threshold must be a float from 0 to 1; got {value!r}")


def check_count(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise unless the argument is an integer within the bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise MetricValueError(f"{name} must be an integer {bounds}; got {value!r}")


def check_ignore_index(value: Any) -> None:
    """Raise unless the argument is None or an integer."""
    if value is not None and not isinstance(value, int):
        raise MetricValueError(f"ignore_index must be an integer or None; got {value!r}")


_SHOWN = ("num_classes", "num_labels", "threshold", "top_k", "average", "normalize", "multidim_average", "ignore_index")


def shown(metric: object) -> str:
    """Return a metric's arguments for its repr; the average stands there since two defaults are in use."""
    return ", ".join(f"{name}={vars(metric)[name]!r}" for name in (*_SHOWN, "input") if name in vars(metric))
