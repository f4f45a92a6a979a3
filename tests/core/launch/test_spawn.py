"""A function in processes of its own, and what comes back of it."""

import os
import signal
import sys
import time

import pytest
import torch

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError, RankFailedError
from leyden.core.launch.spawn import SpawnLauncher

WAYS = pytest.mark.parametrize("way", ["spawn", "fork"])


class LossError(Exception):
    """One that takes more than its message."""

    def __init__(self, step, loss):
        super().__init__(f"{loss} at {step}")
        self.step, self.loss = step, loss

    def __reduce__(self):
        return LossError, (self.step, self.loss)


class StubbornError(Exception):
    """One that can not be made again from its message."""

    def __init__(self, step, loss):
        super().__init__(f"{loss} at {step}")


def met(model, offset=0):
    torch.distributed.init_process_group("gloo")
    total = torch.tensor(float(os.environ["RANK"]) + offset)
    torch.distributed.all_reduce(total)
    torch.distributed.destroy_process_group()
    return {"total": total, "model": model, "rank": os.environ["RANK"], "world": os.environ["WORLD_SIZE"]}


def end(way, folder):
    (folder / f"ready-{os.environ['RANK']}").write_text(str(os.getpid()))
    while not all((folder / f"ready-{rank}").exists() for rank in range(2)):
        time.sleep(0.01)
    if os.environ["RANK"] == "1":
        if way == "exit":
            sys.exit(3)
        elif way == "leave":
            os._exit(0)
        elif way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif way == "stubborn":
            raise StubbornError(7, "nan")
        else:
            raise LossError(7, "nan")
    time.sleep(600)


@WAYS
def test_what_the_first_process_returns_comes_back(way):
    class Net(torch.nn.Linear):
        """Defined where no import finds it."""

    net = Net(2, 1)
    launcher = SpawnLauncher(2, way)
    result = launcher.launch(met, net, offset=1)
    assert (result["total"], result["rank"], result["world"]) == (torch.tensor(3.0), "0", "2")
    assert torch.equal(result["model"].weight, net.weight)
    assert result["model"] is not net
    assert not launcher.procs


def test_a_large_result_comes_back():
    assert SpawnLauncher(1).launch(torch.ones, 3, 1_000_000).sum() == 3_000_000


@pytest.mark.parametrize(
    ("way", "words"),
    [("exit", "ended with exit code 3"), ("leave", "ended with exit code 0"), ("kill", "was killed by SIGKILL")],
)
def test_a_process_that_ends_ends_the_others(way, words, tmp_path, gone):
    with pytest.raises(RankFailedError, match=rf"Rank 1 .*{words}"):
        SpawnLauncher(2, "fork").launch(end, way, tmp_path)
    assert gone([int((tmp_path / f"ready-{rank}").read_text()) for rank in range(2)])


@WAYS
def test_what_a_process_raises_is_raised_here(way, tmp_path, gone):
    with pytest.raises(LossError, match="nan at 7") as raised:
        SpawnLauncher(2, way).launch(end, "raise", tmp_path)
    assert raised.value.step == 7
    assert "rank 1" in raised.value.__notes__[0]
    assert "in end" in raised.value.__notes__[0]
    assert gone([int((tmp_path / f"ready-{rank}").read_text()) for rank in range(2)])


def test_an_exception_that_can_not_be_copied_is_told(tmp_path):
    with pytest.raises(RankFailedError, match="Rank 1 raised StubbornError"):
        SpawnLauncher(2, "fork").launch(end, "stubborn", tmp_path)


def test_what_can_not_be_pickled_is_refused_before_a_process_starts(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(MisconfigurationTypeError, match="can not be pickled"):
        SpawnLauncher(2).launch(print, file)


def test_an_unknown_start_method_is_refused():
    with pytest.raises(MisconfigurationValueError, match=r"`start_method` must be one of .*; got 'popen'"):
        SpawnLauncher(2, "popen")


PROMPT = """
import os, sys, time
from leyden.core.launch.spawn import SpawnLauncher
def work(word):
    rank = os.environ["RANK"]
    with open("ready-" + rank, "w") as file: _ = file.write(str(os.getpid()))
    time.sleep(600 if word == "stand" else 0)
    return word + rank

print(SpawnLauncher(2, "spawn").launch(work, %r))
"""


@pytest.mark.parametrize("command", [["-i"], ["-"]], ids=["prompt", "stdin"])
def test_functions_of_a_prompt_run(program, command):
    process = program("", command=[sys.executable, *command], stdin=-1)
    out, err = process.communicate(PROMPT % "ran", timeout=60)
    assert out == "ran0\n", err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_here_ends_the_processes(program, ranks, gone, signum, code):
    process = program("", command=[sys.executable, "-c", PROMPT % "stand"])
    pids = ranks(process)
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert gone(pids)
