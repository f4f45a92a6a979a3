# SPDX-License-Identifier: Apache-2.0
"""How long an import takes in a new process, as a ratio to `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from report import machine, table

# Leyden's packages are lazy, so the names that a program uses are part of what is timed.
STATEMENTS = (
    "import torch",
    "from leyden.core import LightningModule, Trainer",
    "from leyden.metrics import Accuracy",
    "from torchmetrics import Accuracy",
    "from lightning.pytorch import LightningModule, Trainer",
)
# The start of the interpreter is the same for all and no part of the question.
TIMED = "import sys, time; t = time.perf_counter(); exec(sys.argv[1]); print(time.perf_counter() - t)"


def run(rounds: int) -> str:
    """Time every statement once per round, in an order that moves by one from round to round.

    Args:
        rounds: Number of processes per statement, after one that is not counted and leaves the bytecode behind.

    Returns:
        The report.
    """
    # Where bytecode may not be written, every process compiles torch anew, and that is all one would measure.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for statement in STATEMENTS:
        _seconds(statement, environ)
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for turn in range(rounds):
        shift = turn % len(STATEMENTS)
        for statement in (*STATEMENTS[shift:], *STATEMENTS[:shift]):
            times[statement].append(_seconds(statement, environ))
    rows = []
    for statement in STATEMENTS:
        ratios = [mine / torch for mine, torch in zip(times[statement], times["import torch"], strict=True)]
        rows.append([f"`{statement}`", f"{median(times[statement]) * 1e3:.0f}", f"{median(ratios):.2f}"])
    return "\n\n".join(
        [
            "## Import",
            machine("torch", "leyden-core", "leyden-metrics", "torchmetrics", "lightning"),
            f"Medians of {rounds} new processes each, interleaved, bytecode cached; ratios are taken per round.",
            table(["statement", "ms", "ratio to torch"], rows),
        ]
    )


def _seconds(statement: str, environ: dict[str, str]) -> float:
    command = [sys.executable, "-W", "ignore", "-c", TIMED, statement]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return float(done.stdout)
