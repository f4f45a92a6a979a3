# SPDX-License-Identifier: Apache-2.0
"""What Fabric costs per step of a loop by hand: without it, under Leyden's and under Lightning's, in one process."""

from __future__ import annotations

import gc
import importlib
import warnings
from statistics import median

import torch
from report import machine, table
from steps import Batches, network
from torch import nn

FABRICS = {"Leyden Fabric": "leyden.core", "Lightning Fabric": "lightning.fabric"}


def by_hand(batches: Batches) -> None:
    """Run the loop without Fabric."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def by_fabric(package: str, batches: Batches, devices: int = 1) -> None:
    """Run the same loop under a Fabric; with several devices, in one of the processes."""
    fabric = importlib.import_module(package).Fabric(accelerator="cpu", devices=devices)
    fabric.launch()
    model = network()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()


def run(rounds: int, steps: int = 1000) -> str:
    """Measure, and return the report."""
    torch.set_num_threads(1)
    runners = ["by hand", *FABRICS]
    times: dict[str, list[float]] = {name: [] for name in runners}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(rounds):
            shift = turn % len(runners)
            for name in runners[shift:] + runners[:shift]:
                batches = Batches(steps)
                gc.collect()
                if name == "by hand":
                    by_hand(batches)
                else:
                    by_fabric(FABRICS[name], batches)
                times[name].append(batches.microseconds)
    raw = median(times["by hand"])
    rows = [[name, f"{median(found):.1f}", f"{median(found) - raw:+.1f}"] for name, found in times.items()]
    return f"{machine('torch', 'lightning')}\n\n{table(['one step, one process', 'microseconds', 'added'], rows)}"
