# SPDX-License-Identifier: Apache-2.0
"""What `Trainer(compile=True)` gains: a mid-size model in an eager loop written by hand, and under the trainer."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable
from statistics import median

import torch
from report import machine, table
from steps import Batch, Batches
from torch import Tensor, nn

import leyden.core as L

BATCH, WIDTH, DEPTH, CLASSES = 64, 128, 8, 10


def network() -> nn.Module:
    """Make the model: layers of a linear map, LayerNorm and GELU."""
    torch.manual_seed(0)
    layers = [part for _ in range(DEPTH) for part in (nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def by_hand(batches: Batches) -> None:
    """Run the loop that users write without an engine."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


class Module(L.LightningModule):
    """The same, for the trainer; it logs its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def by_trainer(batches: Batches, *, compiled: bool) -> None:
    """Run the same under the trainer."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        compile=compiled,
    )
    trainer.fit(Module(), batches)


def run(rounds: int, steps: int = 500) -> str:
    """Measure in interleaved blocks and report.

    Args:
        rounds: Number of blocks each.
        steps: Steps per block.

    Returns:
        The report.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    runners: dict[str, Callable[[Batches], None]] = {
        "by hand, eager": by_hand,
        "Trainer": lambda batches: by_trainer(batches, compiled=False),
        "Trainer(compile=True)": lambda batches: by_trainer(batches, compiled=True),
    }
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds):
        order = list(runners)
        for name in order[turn % 3 :] + order[: turn % 3]:
            batches = Batches(steps, BATCH, WIDTH)
            gc.collect()
            runners[name](batches)
            times[name].append(batches.microseconds)
    hand = times["by hand, eager"]
    rows = [
        [name, f"{median(own):.0f}", f"{median(a / b for a, b in zip(own, hand, strict=True)):.2f}"]
        for name, own in times.items()
    ]
    return "\n\n".join(
        [
            "## Compiled",
            machine("torch", "leyden-core"),
            f"Microseconds per step; medians over {rounds} interleaved blocks of {steps} steps. {DEPTH} x {WIDTH} MLP"
            f" with LayerNorm and GELU, batch of {BATCH}, AdamW, CPU, one thread. One `self.log` per step in the"
            " trainer.",
            table(["what", "us per step", "ratio"], rows),
        ]
    )
