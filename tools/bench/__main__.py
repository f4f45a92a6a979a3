# SPDX-License-Identifier: Apache-2.0
"""Measure what Leyden costs, beside the reference libraries: `uv run --group bench tools/bench [NAME ...]`.

Everything is compared within one run, in interleaved blocks, by medians; no number is compared with one of another day.
"""

from __future__ import annotations

import argparse
import sys

import compiled
import fabric
import imports
import parallel
import saves
import steps
import updates

BENCHES = {
    "import": lambda rounds: imports.run(rounds or 11),
    "step": lambda rounds: steps.run("Steps", steps.STEP, rounds or 9, 1000),
    "log": lambda rounds: steps.run("Logging", steps.LOG, rounds or 9, 1000),
    "compile": lambda rounds: compiled.run(rounds or 5),
    "fabric": lambda rounds: fabric.run(rounds or 9),
    "ddp": lambda rounds: parallel.run(rounds or 7),
    "save": lambda rounds: saves.run(rounds or 3),
    "metric": lambda rounds: updates.run(rounds or 201),
}


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="what to measure; everything by default")
    parser.add_argument("--rounds", type=int, help="number of interleaved rounds; more are slower and steadier")
    options = parser.parse_args()
    for name in options.names or BENCHES:
        print(BENCHES[name](options.rounds), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
