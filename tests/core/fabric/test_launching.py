"""How Fabric's processes start, what they tell each other, and how they end when one of them does."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import leyden.core as L
from leyden.core.errors import CheckpointError, RankFailedError

from .loops import Halves, data, net


def talk(fabric, folder):
    """What one of two processes sees, as plain data."""
    rank = fabric.global_rank
    found = {"rank": rank, "world": fabric.world_size, "gathered": fabric.all_gather({"x": torch.tensor([rank])})["x"]}
    found["reduced"] = [fabric.all_reduce(rank + 1.0, reduce_op=how) for how in ("mean", "sum", "max", "min")]
    found["told"] = fabric.broadcast({"from": rank}, src=1)
    with fabric.rank_zero_first():
        found["first"] = rank == 0 or (folder / "made").exists()
        if rank == 0:
            (folder / "made").write_text("")
    halves = fabric.setup(Halves())
    try:
        halves.both(data()[:2][0])
    except RuntimeError as error:
        found["refused"] = str(error)
    with torch.no_grad():
        found["allowed"] = halves.both(data()[:2][0]).shape
    normal = fabric.setup(net(torch.nn.BatchNorm1d(16)))
    normal(data()[8 * rank : 8 * rank + 8][0])
    normal.eval()
    found["means"] = fabric.all_gather(normal.module[1].running_mean)
    (folder / "file").write_text("")
    try:
        fabric.save(folder / "file" / "a.ckpt", {"model": normal})
    except CheckpointError as error:
        found["unsaved"] = str(error)
    return fabric.strategy.gather_objects(found)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_a_function_runs_in_every_process(strategy, tmp_path):
    fabric = L.Fabric(accelerator="cpu", devices=2, strategy=strategy)
    both = fabric.launch(talk, tmp_path)
    assert [(found["rank"], found["world"]) for found in both] == [(0, 2), (1, 2)]
    for found in both:
        assert found["gathered"].tolist() == [[0], [1]]
        assert [float(each) for each in found["reduced"]] == [1.5, 3.0, 2.0, 1.0]
        assert found["told"] == {"from": 1}
        assert found["first"]
        assert "mark_forward_method('both')" in found["refused"]
        assert found["allowed"] == (2, 1)
        assert torch.equal(found["means"][0], found["means"][1])
        assert "could not save the checkpoint" in found["unsaved"]


def fail(fabric):
    if fabric.global_rank == 1:
        raise LookupError("nothing here")
    fabric.barrier()


def vanish(fabric):
    if fabric.global_rank == 1:
        os._exit(0)
    fabric.barrier()


def test_what_a_process_raises_is_raised():
    with pytest.raises(LookupError, match="nothing here"):
        L.Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(fail)
    with pytest.raises(RankFailedError, match="Rank 1"):
        L.Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(vanish)


SCRIPT = """
import os, sys, torch
import leyden.core as L

fabric = L.Fabric(accelerator="cpu", devices=2)
print("above", flush=True)
fabric.launch()
if fabric.global_rank == 1:
    {end}
fabric.barrier()
fabric.print("reached")
"""


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("pass", 0, ""),
        ("raise LookupError('nothing here')", 1, "LookupError: nothing here"),
        ("os._exit(0)", 1, "Rank 1"),
        ("os.kill(os.getpid(), 9)", 137, "Rank 1"),
    ],
    ids=["well", "raises", "vanishes", "killed"],
)
def test_a_script_runs_again_in_every_process_and_ends_as_its_processes_do(end, code, words, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).replace("{end}", end))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    # once where it was started, and once in every process
    assert done.stdout.count("above") == 3
    assert done.stdout.count("reached") == (end == "pass")
    assert words in done.stderr
