"""`python script.py` becomes the agent of its ranks, which run the script as it was started."""

import sys

import pytest

from leyden.core.launch.command import split_command

SAY = """
from pathlib import Path
word = launch(lambda: "ran")
flags = (sys.flags.dev_mode, sys.stdout.line_buffering or sys.stdout.write_through)
leave_word(f"said-{rank}", repr((word, sys.argv, os.getcwd(), sys.path[0], __name__, __file__, flags, os.getppid())))
"""


def said(folder):
    return [eval((folder / f"said-{rank}").read_text()) for rank in range(2)]


def test_a_script_runs_in_every_rank_as_it_was_started(program, tmp_path):
    process = program(SAY, "x y", "--lr=1", name="in here/train it.py", flags=("-uX", "dev"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    script = tmp_path / "in here" / "train it.py"
    expected = ("ran", ["in here/train it.py", "x y", "--lr=1"], str(tmp_path), str(script.parent), "__main__")
    for word in said(tmp_path):
        # the agent is the process that was started
        assert word == (*expected, str(script), (True, True), process.pid)


def test_a_module_runs_in_every_rank_as_it_was_started(program, tmp_path):
    process = program(SAY, name="package/train.py", command=[sys.executable, "-m", "package.train", "-m", "x y"])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    script = str(tmp_path / "package" / "train.py")
    for word in said(tmp_path):
        assert word[1:6] == ([script, "-m", "x y"], str(tmp_path), str(tmp_path), "__main__", script)


def test_code_behind_the_launch_runs_in_the_ranks_only(program, tmp_path):
    source = 'print("above", rank, flush=True)\nlaunch(print)\nprint("behind", rank, flush=True)\n'
    out, _ = program(source).communicate(timeout=60)
    lines = [line for line in out.splitlines() if line]
    assert sorted(lines) == ["above -1", "above 0", "above 1", "behind 0", "behind 1"]


def test_ranks_know_who_they_are_and_meet_at_the_store_of_the_agent(program, tmp_path):
    source = """
def work():
    import torch.distributed as dist
    from leyden.core.launch.environment import choose_environment
    here = choose_environment()
    here.validate_settings(2, 1)
    dist.init_process_group("gloo")
    found = [None, None]
    dist.all_gather_object(found, (here.global_rank(), here.local_rank(), here.world_size(), here.node_rank()))
    dist.destroy_process_group()
    return type(here).__name__, found
leave_word(f"said-{rank}", repr((launch(work), os.environ["OMP_NUM_THREADS"])))
"""
    out, err = program(source, env={"OMP_NUM_THREADS": "3"}).communicate(timeout=60)
    assert said(tmp_path) == [(("TorchElasticEnvironment", [(0, 0, 2, 0), (1, 1, 2, 0)]), "3")] * 2, out + err


def test_data_workers_that_are_spawned_find_the_script(program, tmp_path):
    source = """
import multiprocessing
def double(x):
    return 2 * x
def work():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(double, [1, 2])
if __name__ == "__main__":
    leave_word(f"said-{rank}", repr(launch(work)))
"""
    out, err = program(source).communicate(timeout=60)
    assert said(tmp_path) == [[2, 4]] * 2, out + err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "code", "x"], ([], ["-c", "code", "x"])),
        (["-W", "error", "-Xdev", "-"], (["-W", "error", "-X", "dev"], ["-"])),
        (["-iOO", "a.py", "-u"], (["-O", "-O"], ["a.py", "-u"])),
        (["--check-hash-based-pycs", "never", "-mpackage"], (["--check-hash-based-pycs", "never"], ["-m", "package"])),
        ([], ([], [])),
    ],
)
def test_a_command_line_is_taken_apart(arguments, expected):
    assert split_command(arguments) == expected


@pytest.mark.parametrize(
    ("command", "given"),
    [(["-c", "{}"], ""), (["-"], "{}"), ([], "{}"), (["-i"], "{}")],
    ids=["-c", "stdin", "no words", "prompt"],
)
def test_what_can_not_run_again_is_no_script(program, command, given):
    code = "from leyden.core.launch.script import suits_script; print(suits_script())"
    process = program("", command=[sys.executable, *(word.format(code) for word in command)], stdin=-1)
    out, _ = process.communicate(given.format(code) + "\n", timeout=60)
    assert out.strip() == "False"
