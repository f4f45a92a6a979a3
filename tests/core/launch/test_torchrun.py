"""A job of torchrun ends as soon as one of its ranks does, and says why."""

import signal
import sys
import time

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]

TRAIN = """
import torch
import leyden.core as L

event, seconds = sys.argv[1], float(sys.argv[2])
leave_word(f"ready-{rank}", str(os.getpid()))


def end():
    if event == "kill":
        os.kill(os.getpid(), 9)
    elif event == "leave":
        os._exit(0)
    elif event == "hang":
        time.sleep(600)
    elif event == "exit":
        sys.exit(3)
    elif event != "stop":
        raise ValueError("the loss is gone")


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def prepare_data(self):
        if event == "prepare_data":
            end()

    def setup(self, stage):
        if event == "setup" and rank == 1:
            end()

    def training_step(self, batch, batch_idx):
        if batch_idx == 3 and rank == 1:
            end()
        if batch_idx == 3 and event in ("leave", "exit"):
            # as long as a GPU waits for the other one
            time.sleep(600)
        leave_word(f"step-{rank}")
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


trainer = L.Trainer(
    accelerator="cpu", devices=2, max_epochs=-1, logger=False, enable_progress_bar=False, timeout=(600, seconds)
)
trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(100, 1)))
"""


@pytest.fixture
def torchrun(program):
    """Start a training of two ranks in which something happens."""

    def start(event, seconds=600):
        return program(TRAIN, command=[*TORCHRUN, event, str(seconds)], env={"OMP_NUM_THREADS": "1"})

    return start


@pytest.mark.parametrize(("event", "rank"), [("raise", 1), ("setup", 1), ("prepare_data", 0)])
def test_what_a_rank_raises_comes_first(event, rank, torchrun, ranks, gone):
    process = torchrun(event)
    pids = ranks(process)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    head, _, rest = err.partition("ValueError: the loss is gone\n")
    assert head.count("Traceback") == 1
    assert f"[rank{rank}]: Traceback" in head
    # once more in the summary, as the cause
    assert rest.rstrip("= \n").endswith("ValueError: the loss is gone")
    assert gone(pids)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("kill", "had left in the middle of the run before"),
        ("leave", "left in the middle of a run; the other ranks end as well"),
        ("exit", "exitcode  : 3 "),
    ],
)
def test_a_rank_that_ends_ends_the_job(event, words, torchrun, ranks, gone):
    process = torchrun(event)
    pids = ranks(process)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words in err
    assert gone(pids)


def test_a_rank_that_hangs_ends_with_the_others_and_says_where_it_was(torchrun, ranks, gone):
    process = torchrun("hang", seconds=3)
    pids = ranks(process)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Rank 1 (pid {pids[1]} on " in err
    assert "went on after another one had failed, and ends here:" in err
    assert "time.sleep(600)" in err
    assert gone(pids)


def test_ranks_save_after_a_signal_to_torchrun(torchrun, ranks, gone, tmp_path):
    process = torchrun("stop")
    pids = ranks(process)
    while not all((tmp_path / f"step-{rank}").exists() for rank in range(2)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1, err
    assert gone(pids)


def test_ranks_go_with_a_torchrun_that_is_killed(torchrun, ranks, gone):
    process = torchrun("stop")
    pids = ranks(process)
    process.kill()
    assert gone(pids)
