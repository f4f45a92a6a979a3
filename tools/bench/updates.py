# SPDX-License-Identifier: Apache-2.0
"""What one `update` of a metric costs beside the fewest torch operations that give the same state."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from report import machine, table
from torch import Tensor

LIBRARIES = {"Leyden": "leyden.metrics", "TorchMetrics": "torchmetrics"}
BATCH, CLASSES = 256, 10
CALLS = 20
Update = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Case:
    """One metric.

    Attributes:
        name: Name of the class in both libraries.
        arguments: What it is made with.
        inputs: Makes the predictions and the targets.
        bare: Makes a function that keeps the same state with the fewest operations.
    """

    name: str
    arguments: dict[str, Any]
    inputs: Callable[[], tuple[Tensor, Tensor]]
    bare: Callable[[], Update]

    @property
    def title(self) -> str:
        """What stands in the table."""
        return f"`{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})`"


def _scores() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, CLASSES), torch.randint(CLASSES, (BATCH,))


def _values() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH), torch.rand(BATCH)


def _right_and_all() -> Update:
    right, count = torch.zeros((), dtype=torch.long), 0

    def update(preds: Tensor, target: Tensor) -> None:
        nonlocal right, count
        right += (preds.argmax(1) == target).sum()
        count += target.numel()

    return update


def _confusion() -> Update:
    matrix = torch.zeros(CLASSES * CLASSES, dtype=torch.long)

    def update(preds: Tensor, target: Tensor) -> None:
        nonlocal matrix
        matrix += torch.bincount(target * CLASSES + preds.argmax(1), minlength=CLASSES * CLASSES)

    return update


def _weighted_sum() -> Update:
    total, weights = torch.zeros(()), torch.zeros(())

    def update(values: Tensor, weight: Tensor) -> None:
        nonlocal total, weights
        total += (values * weight).sum()
        weights += weight.sum()

    return update


CASES = (
    Case("MulticlassAccuracy", {"num_classes": CLASSES, "average": "micro"}, _scores, _right_and_all),
    Case("MulticlassF1Score", {"num_classes": CLASSES}, _scores, _confusion),
    Case("MulticlassConfusionMatrix", {"num_classes": CLASSES}, _scores, _confusion),
    Case("MeanMetric", {}, _values, _weighted_sum),
)


def run(rounds: int) -> str:
    """Measure and report.

    Args:
        rounds: Number of interleaved blocks per metric and library.

    Returns:
        The report.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    rows = []
    for case in CASES:
        times = measure(case, rounds)
        bare = times["bare"]
        cells = [f"{median(times[name]):.1f}" for name in ("bare", *LIBRARIES)]
        ratios = [median(a / b for a, b in zip(times[name], bare, strict=True)) for name in LIBRARIES]
        rows.append([case.title, *cells, *(f"{ratio:.2f}" for ratio in ratios)])
    return "\n\n".join(
        [
            "## Metrics",
            machine("torch", "leyden-metrics", "torchmetrics"),
            f"Microseconds per `update`; medians over {rounds} interleaved blocks of {CALLS} calls. "
            f"Batch of {BATCH}, {CLASSES} classes, CPU, one thread.",
            table(["metric", "bare", *LIBRARIES, *(f"{name} / bare" for name in LIBRARIES)], rows),
        ]
    )


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Time one metric.

    Args:
        case: Which.
        rounds: Number of blocks.

    Returns:
        Microseconds per call by library and for the bare operations, one per round.
    """
    preds, target = case.inputs()
    updates: dict[str, Update] = {"bare": case.bare()}
    for name, module in LIBRARIES.items():
        updates[name] = _class(module, case.name)(**case.arguments).update
    times: dict[str, list[float]] = {name: [] for name in updates}
    for turn in range(rounds):
        order = list(updates)
        shift = turn % len(order)
        for name in order[shift:] + order[:shift]:
            update = updates[name]
            update(preds, target)
            started = time.perf_counter()
            for _ in range(CALLS):
                update(preds, target)
            times[name].append((time.perf_counter() - started) / CALLS * 1e6)
    return times


def _class(module: str, name: str) -> Callable[..., Any]:
    """Find a class where each library shows it; TorchMetrics keeps those of one task a level deeper."""
    package = importlib.import_module(module)
    found: Callable[..., Any] | None = getattr(package, name, None)
    if found is None:
        found = getattr(importlib.import_module(f"{module}.classification"), name)
    return found
