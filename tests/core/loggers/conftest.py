import csv
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def read_table(folder):
    """The rows of metrics.csv, each as a dict of its filled cells."""
    with (Path(folder) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]


@pytest.fixture
def table():
    return read_table


@pytest.fixture
def start(tmp_path):
    """Start a Python process on a piece of code; what is still running at the end of the test is killed."""
    started = []

    def begin(code, *arguments, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
            **options,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_code(start):
    """Run a piece of code in a fresh process and return what it printed."""

    def run(code, *arguments, **options):
        process = start(code, *arguments, **options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out.strip()

    return run
