"""A run of two processes that goes on from a file ends with the bits of the run that was not interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .resumed_runs import RUNS

SCRIPT = Path(__file__).with_name("resumed_runs.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    target = tmp_path_factory.mktemp("two") / "results.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(target)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(target.read_text())


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_go_on_exactly(name, found):
    for rank in found[name]:
        assert {key: rank[key] for key in ("weights", "data", "metrics")} == {"weights": [], "data": [], "metrics": []}
        assert rank["batches"] == 12 - RUNS[name][3]


@pytest.mark.parametrize("name", RUNS)
def test_no_noise_is_drawn_twice(name, found):
    first, second = (rank["noise"] for rank in found[name])
    assert len(first) == len(second) == 48
    assert not set(first) & set(second)
