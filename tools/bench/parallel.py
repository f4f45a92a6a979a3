# SPDX-License-Identifier: Apache-2.0
"""What an engine costs per step of two processes: raw DistributedDataParallel by hand, Leyden, Lightning, Fabrics.

Both processes measure all in turn, in interleaved blocks, within one process group; the slower process counts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from fabric import FABRICS, by_fabric
from report import machine, table
from steps import ENGINES, Batches, Terminal, Variant, by_engine, network
from torch import nn

FLAGS = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}


def by_hand(batches: Batches) -> None:
    """Run the loop that users of DistributedDataParallel write without an engine."""
    model = nn.parallel.DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def measure(rounds: int, steps: int) -> dict[str, list[float]]:
    """Return microseconds per step of the slower process, by who runs the loop, one per round."""
    runners = ["by hand", *ENGINES, *FABRICS]
    times: dict[str, list[float]] = {name: [] for name in runners}
    variant = Variant("DDP step", flags=FLAGS)
    for turn in range(rounds):
        shift = turn % len(runners)
        for name in runners[shift:] + runners[:shift]:
            batches = Batches(steps)
            gc.collect()
            dist.barrier()
            with contextlib.redirect_stderr(Terminal()), contextlib.redirect_stdout(Terminal()):
                if name == "by hand":
                    by_hand(batches)
                elif name in FABRICS:
                    by_fabric(FABRICS[name], batches, devices=2)
                else:
                    by_engine(ENGINES[name], variant, batches)
            slower = torch.tensor(batches.microseconds)
            dist.all_reduce(slower, dist.ReduceOp.MAX)
            times[name].append(float(slower))
    return times


def run(rounds: int, steps: int = 1000) -> str:
    """Measure, and return the report."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "times.json"
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, *command, str(target), str(rounds), str(steps)], env=environment, check=True, cwd=folder
        )
        times = json.loads(target.read_text())
    raw = median(times["by hand"])
    rows = [[name, f"{median(found):.0f}", f"{median(found) / raw:.3f}"] for name, found in times.items()]
    head = ["one DDP step, 2 processes, gloo", "microseconds", "of raw DDP"]
    return f"{machine('torch', 'lightning')}\n\n{table(head, rows)}"


def main() -> None:
    """Be one of the processes."""
    target, rounds, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    times = measure(rounds, steps)
    if dist.get_rank() == 0:
        Path(target).write_text(json.dumps(times))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
