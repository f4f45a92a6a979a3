"""A loop of one's own in two processes comes to what it comes to in one with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import leyden.core as L

from . import loops

SCRIPT = Path(__file__).with_name("loops.py")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes came to, by the strategy's name; the script is started as any script is."""
    found = {}
    for strategy in ("ddp", "fsdp"):
        target = tmp_path_factory.mktemp(strategy) / "results.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SCRIPT), str(target), strategy]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-4000:]
        found[strategy] = json.loads(target.read_text())
    return found


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize(
    ("strategy", "loop"),
    [*(("ddp", loop) for loop in loops.TRAINED), *(("fsdp", loop) for loop in loops.SHARDED)],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_two_processes_train_to_the_weights_of_one(strategy, loop, of_two):
    alone, both = loop(L.Fabric(accelerator="cpu", devices=1)), of_two[strategy][loop.__name__]
    assert set(both) == set(alone)
    for key, values in alone.items():
        # sums over the processes are rounded in another order
        torch.testing.assert_close(torch.tensor(both[key]), torch.tensor(values), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_one_thread")
def test_what_is_measured_in_two_processes_counts_every_sample_once(of_two):
    alone, both = loops.measured(L.Fabric(accelerator="cpu", devices=1)), of_two["ddp"]["measured"]
    assert both["count"] == alone["count"] == [13.0]
    assert both["error"] == pytest.approx(alone["error"], rel=1e-5)
    assert both["lengths"] == [4, 4]


def test_data_that_end_at_different_times_end_together(of_two):
    # 6 numbers make 3 batches on the first process, and 3 numbers make 2 on the second
    assert of_two["ddp"]["measured"]["rounds"] == [2, 2]
