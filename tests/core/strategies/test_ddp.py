"""Two processes with DistributedDataParallel train to the weights of one process with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .runs import RUNS, run

SCRIPT = Path(__file__).with_name("runs.py")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes came to, for each of the runs; the script is started as any script is."""
    target = tmp_path_factory.mktemp("two") / "results.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(target), "2"], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(target.read_text())


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_to_the_weights_of_one(name, of_two, tmp_path):
    alone, both = run(name, 1, tmp_path), of_two[name]
    assert both["steps"] == alone["steps"]
    for key, values in alone["weights"].items():
        # sums over the processes are rounded in another order; a line search amplifies that
        close = {"rtol": 1e-3, "atol": 1e-4} if name == "a line search" else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(torch.tensor(both["weights"][key]), torch.tensor(values), **close)


@pytest.mark.usefixtures("_one_thread")
def test_what_two_processes_log_is_what_one_logs(of_two, tmp_path):
    alone, both = run("plain", 1, tmp_path), of_two["plain"]
    assert set(both["metrics"]) == set(alone["metrics"])
    for key in ("train_loss_epoch", "val_loss"):
        assert both["metrics"][key] == pytest.approx(alone["metrics"][key], rel=1e-5)


@pytest.mark.usefixtures("_one_thread")
def test_two_processes_write_the_files_of_one(of_two, tmp_path):
    assert of_two["plain"]["files"] == run("plain", 1, tmp_path)["files"]
