"""A run ends as soon as one of its ranks does, and says which and why."""

import os
import signal
import time

import pytest

# the other rank waits for ever, as it would in a collective
STAND = """
def work():
    leave_word(f"ready-{rank}", str(os.getpid()))
    wait_for("ready-0"), wait_for("ready-1")
    if rank == 1:
        %s
    time.sleep(600)
launch(work)
"""


@pytest.mark.parametrize(
    ("end", "code", "summary"),
    [
        ("sys.exit(3)", 3, "left with exit code 3"),
        ("os.kill(os.getpid(), 9)", 137, "was killed by SIGKILL"),
        ("os._exit(0)", 1, "left with exit code 0 in the middle of a run"),
        ("sys.exit()", 1, "left with exit code 0 in the middle of a run"),
    ],
)
def test_a_rank_that_ends_ends_the_run(program, ranks, gone, end, code, summary):
    process = program(STAND % end)
    pids = ranks(process)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    assert err.startswith(f"Rank 1 (pid {pids[1]} on ")
    assert err.endswith(f"{summary}; the other ranks were ended.\n")
    assert gone(pids)


def test_the_traceback_of_the_rank_that_raised_comes_first_and_alone(program, ranks, gone):
    process = program(STAND % 'raise ValueError("the loss\\nis gone")')
    pids = ranks(process)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "train.py" in lines[1]
    assert lines[-3:-1] == ["ValueError: the loss", "is gone"]
    assert lines[-1].startswith(f"Rank 1 (pid {pids[1]} on ")
    assert err.count("Traceback") == 1
    assert "rank_main" not in err
    assert gone(pids)


def test_ranks_that_leave_together_have_done_what_the_script_says(program):
    process = program("launch(lambda: sys.exit(0))")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_a_rank_may_take_longer_than_the_others_behind_the_run(program, tmp_path):
    process = program('launch(print)\nif rank == 0:\n    time.sleep(3)\n    leave_word("saved")\n')
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "saved").exists()


def test_ranks_go_with_an_agent_that_is_killed(program, ranks, gone):
    process = program(STAND % "pass")
    pids = ranks(process)
    process.kill()
    assert gone(pids)


SAVE = """
import signal
def save(signum, frame):
    time.sleep(1)
    leave_word(f"saved-{rank}", str(signum))
    sys.exit(128 + signum)
def work():
    signal.signal(signal.SIGTERM, save), signal.signal(signal.SIGINT, save)
    leave_word(f"ready-{rank}", str(os.getpid()))
    time.sleep(600)
launch(work)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_ranks_save_after_a_signal_to_the_agent(program, ranks, gone, tmp_path, signum):
    process = program(SAVE)
    pids = ranks(process)
    process.send_signal(signum)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 128 + signum
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in range(2)] == [str(int(signum))] * 2
    assert gone(pids)


def test_a_second_signal_ends_ranks_that_do_not_listen(program, ranks, gone):
    process = program(SAVE.replace("time.sleep(1)", 'leave_word(f"deaf-{rank}"), time.sleep(600)'))
    pids = ranks(process)
    process.send_signal(signal.SIGTERM)
    folder = os.readlink(f"/proc/{pids[0]}/cwd")
    while not all(os.path.exists(f"{folder}/deaf-{rank}") for rank in range(2)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert gone(pids)


def test_ranks_that_save_for_too_long_are_ended(program, ranks, gone):
    process = program(SAVE.replace("time.sleep(1)", "time.sleep(600)"), env={"LEYDEN_KILL_TIMEOUT": "0.5"})
    pids = ranks(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert gone(pids)


def test_a_signal_that_ends_nothing_reaches_the_ranks(program, ranks):
    source = """
import signal
def work():
    came = []
    signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
    leave_word(f"ready-{rank}", str(os.getpid()))
    while not came:
        time.sleep(0.01)
launch(work)
"""
    process = program(source)
    ranks(process)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
