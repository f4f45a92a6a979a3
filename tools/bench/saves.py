# SPDX-License-Identifier: Apache-2.0
"""How long a training stops for a checkpoint, and how long a file takes to be verified and read."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from report import machine, table
from torch.utils.data import DataLoader, TensorDataset

WIDTH, SAVES = 2048, 8


def run(rounds: int) -> str:
    """Train one layer whose file has 50 MB, saving now and then, in every way once per round.

    Args:
        rounds: Number of rounds.

    Returns:
        The report.
    """
    ours, theirs = import_module("leyden.core"), import_module("lightning.pytorch")
    beside = import_module("lightning.pytorch.plugins.io").AsyncCheckpointIO
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    ways: dict[str, Any] = {
        "Leyden": lambda folder: _train(ours, folder),
        "Leyden, `async_save`": lambda folder: _train(ours, folder, async_save=True),
        "Lightning": lambda folder: _train(theirs, folder),
        "Lightning, `AsyncCheckpointIO`": lambda folder: _train(theirs, folder, plugins=[beside()]),
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    copies = []
    for _ in range(rounds):
        for way, train in ways.items():
            folder = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix=".bench"))
            try:
                found[way].append(train(folder))
            finally:
                shutil.rmtree(folder)
        copies.append(_copy())
    rows = [["a copy of the state in memory", f"{median(copies) * 1e3:.0f}", ""]]
    for way, times in found.items():
        rows.append([way, *(f"{median(each) * 1e3:.0f}" for each in zip(*times, strict=True))])
    return "\n\n".join(
        [
            "## Checkpoints",
            machine("torch", "leyden-core", "lightning"),
            f"Milliseconds, medians of {rounds} rounds, interleaved; the state has 50 MB, half a second passes between"
            " two saves.",
            table(["way", "training stops", "load"], rows),
        ]
    )


def _train(library: Any, folder: Path, **flags: Any) -> tuple[float, float]:
    """Return how long a save stops the training, and how long a file takes to load; medians, in seconds."""
    stops: list[float] = []

    class Layer(library.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(WIDTH, WIDTH)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).square().mean()

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            began = time.perf_counter()
            self.trainer.save_checkpoint(folder / f"{batch_idx}.ckpt")
            stops.append(time.perf_counter() - began)
            time.sleep(0.5)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = library.Trainer(max_epochs=1, accelerator="cpu", devices=1, **silent, **flags)
    data = DataLoader(TensorDataset(torch.zeros(SAVES, WIDTH)), 1)
    trainer.fit(Layer(), data)
    began = time.perf_counter()
    Layer.load_from_checkpoint(folder / "0.ckpt")
    return median(stops), time.perf_counter() - began


def _copy() -> float:
    state = [torch.ones(WIDTH, WIDTH) for _ in range(3)]
    began = time.perf_counter()
    held = [tensor.clone() for tensor in state]
    took = time.perf_counter() - began
    del held
    return took
