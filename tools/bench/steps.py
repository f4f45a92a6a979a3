# SPDX-License-Identifier: Apache-2.0
"""What an engine costs per step: the same tiny model in a loop written by hand, in Leyden and in Lightning.

The data stamp the time when a batch is asked for. So nothing is added to a step, and what happens before the first and
after the last step does not count.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from report import machine, table
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
ENGINES = {"Leyden": "leyden.core", "Lightning": "lightning.pytorch"}
BATCH, WIDTH, CLASSES = 16, 32, 10
# Steps at the start of each run that are not counted.
WARM = 50


class Batches:
    """A sized loader that costs next to nothing and notes how long its batches were in use."""

    def __init__(self, count: int, size: int = BATCH, width: int = WIDTH) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pool: list[Batch] = [
            (
                torch.randn(size, width, generator=generator),
                torch.randint(CLASSES, (size,), generator=generator),
            )
            for _ in range(8)
        ]
        self.count = count
        self.microseconds = float("nan")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        pool, started = self.pool, 0.0
        for index in range(self.count):
            if index == WARM:
                started = time.perf_counter()
            elif index == self.count - 1:
                self.microseconds = (time.perf_counter() - started) / (self.count - 1 - WARM) * 1e6
            yield pool[index % len(pool)]


class Terminal(io.StringIO):
    """Takes what a progress bar draws; without a terminal a bar may draw less."""

    def isatty(self) -> bool:
        """Pretend."""
        return True


@dataclass(frozen=True)
class Variant:
    """One thing to measure.

    Attributes:
        title: What stands in the table.
        logs: How often `training_step` calls `self.log`.
        callbacks: How many callbacks that override nothing are given.
        flags: Further flags of the Trainer.
        validate: Whether batches of a validation epoch are counted instead of training steps.
    """

    title: str
    logs: int = 0
    callbacks: int = 0
    flags: dict[str, Any] = field(default_factory=dict)
    validate: bool = False


STEP = (
    Variant("training step"),
    Variant("... with ten idle callbacks", callbacks=10),
    Variant("... with a progress bar", flags={"enable_progress_bar": True}),
    Variant("validation step", validate=True),
)
LOG = (
    Variant("training step"),
    Variant("... with one `self.log`", logs=1),
    Variant("... with five `self.log`", logs=5),
)


def network() -> nn.Module:
    """Make the model: small enough for the engine to be seen beside it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def by_hand(variant: Variant, batches: Batches) -> None:
    """Run the loop that users write without an engine.

    Args:
        variant: Only `validate` matters here.
        batches: The data.
    """
    model = network()
    if variant.validate:
        model.eval()
        with torch.inference_mode():
            for x, y in batches:
                nn.functional.cross_entropy(model(x), y)
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def by_engine(engine: str, variant: Variant, batches: Batches) -> None:
    """Run the same under an engine; the user's code does not depend on which.

    Args:
        engine: Import name.
        variant: What to switch on.
        batches: The data.
    """
    lib = importlib.import_module(engine)
    names = [f"value_{index}" for index in range(variant.logs)]

    class Module(lib.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            x, y = batch
            loss = nn.functional.cross_entropy(self.network(x), y)
            for name in names:
                self.log(name, loss)
            return loss

        def validation_step(self, batch: Batch, batch_idx: int) -> None:
            x, y = batch
            nn.functional.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    flags: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [lib.Callback() for _ in range(variant.callbacks)],
    }
    trainer = lib.Trainer(**(flags | variant.flags))
    if variant.validate:
        trainer.validate(Module(), batches, verbose=False)
    else:
        trainer.fit(Module(), batches)


def measure(variants: tuple[Variant, ...], rounds: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Time all variants in interleaved blocks, so that a slow spell of the machine falls on all of them.

    Args:
        variants: What to measure.
        rounds: Number of blocks per variant and engine.
        steps: Steps per block.

    Returns:
        Microseconds per step by variant title and engine, one per round.
    """
    runners: dict[str, Callable[[Variant, Batches], None]] = {"by hand": by_hand}
    for title, engine in ENGINES.items():
        runners[title] = lambda variant, batches, engine=engine: by_engine(engine, variant, batches)  # type: ignore[misc]
    times: dict[str, dict[str, list[float]]] = {variant.title: {name: [] for name in runners} for variant in variants}
    for turn in range(rounds):
        for variant in variants:
            order = list(runners)
            shift = turn % len(order)
            for name in order[shift:] + order[:shift]:
                batches = Batches(steps)
                gc.collect()
                with contextlib.redirect_stderr(Terminal()), contextlib.redirect_stdout(Terminal()):
                    runners[name](variant, batches)
                times[variant.title][name].append(batches.microseconds)
    return times


def run(title: str, variants: tuple[Variant, ...], rounds: int, steps: int) -> str:
    """Measure and report.

    Args:
        title: Heading of the report.
        variants: What to measure.
        rounds: Number of blocks per variant and engine.
        steps: Steps per block.

    Returns:
        The report.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "leyden.core", "leyden"):
        logging.getLogger(name).setLevel(logging.ERROR)
    times = measure(variants, rounds, steps)
    rows = [_row(variant.title, times[variant.title]) for variant in variants]
    parts = [
        f"## {title}",
        machine("torch", "leyden-core", "lightning"),
        f"Microseconds per step; medians over {rounds} interleaved blocks of {steps} steps. "
        f"MLP {WIDTH}-{WIDTH}-{CLASSES}, batch of {BATCH}, SGD, CPU, one thread.",
        table(["what", "by hand", "Leyden adds", "Lightning adds", "Lightning / Leyden"], rows),
    ]
    logged = [variant for variant in variants if variant.logs]
    if len(logged) > 1:
        parts.append(_per_call(logged[0], logged[-1], times))
    return "\n\n".join(parts)


def _added(times: dict[str, list[float]], engine: str) -> float:
    return median(mine - hand for mine, hand in zip(times[engine], times["by hand"], strict=True))


def _row(title: str, times: dict[str, list[float]]) -> list[str]:
    leyden, lightning = (_added(times, engine) for engine in ENGINES)
    ratio = f"{lightning / leyden:.1f}" if leyden > 0 else "-"
    return [title, f"{median(times['by hand']):.1f}", f"{leyden:.1f}", f"{lightning:.1f}", ratio]


def _per_call(few: Variant, many: Variant, times: dict[str, dict[str, list[float]]]) -> str:
    calls = many.logs - few.logs
    costs = {
        engine: median(b - a for a, b in zip(times[few.title][engine], times[many.title][engine], strict=True)) / calls
        for engine in ENGINES
    }
    each = ", ".join(f"{engine} {cost:.1f} us" for engine, cost in costs.items())
    return f"One more `self.log` call: {each}."
