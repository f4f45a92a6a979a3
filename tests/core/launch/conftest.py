"""Programs that launch themselves, as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LEYDEN_KILL_TIMEOUT")

LAUNCH = """
import os, sys, time
from leyden.core.launch.rank import busy
from leyden.core.launch.script import ScriptLauncher

rank = int(os.environ.get("RANK", -1))


def launch(work, processes=2, **options):
    with busy():
        return ScriptLauncher(processes, **options).launch(work)


def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)


def leave_word(name, text=""):
    with open(name + ".draft", "w") as file:
        file.write(text)
    os.replace(name + ".draft", name)
"""


@pytest.fixture
def program(tmp_path):
    """Write a program, behind which ``launch`` and the like are defined, and start it."""
    started = []

    def start(source, *arguments, name="train.py", command=None, flags=(), **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LAUNCH + source)
        # a process that is killed leaves its folder behind
        (tmp_path / "scratch").mkdir()
        environment = {k: v for k, v in os.environ.items() if k not in OURS}
        environment |= {"TMPDIR": str(tmp_path / "scratch"), **options.pop("env", {})}
        command = command or [sys.executable, *flags, name, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        process = subprocess.Popen(command, env=environment, **{**pipes, **options})
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def ranks(tmp_path):
    """Wait for the ranks 0 and 1, which leave their number in files of their own, and return their processes."""

    def wait(process, seconds=60.0):
        deadline = time.monotonic() + seconds
        files = [tmp_path / "ready-0", tmp_path / "ready-1"]
        while not all(file.exists() for file in files):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the ranks do not start"
            time.sleep(0.01)
        return [int(file.read_text()) for file in files]

    return wait


def alive(pid):
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture
def gone():
    """Wait until processes are gone."""

    def wait(pids, seconds=10.0):
        deadline = time.monotonic() + seconds
        while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        left = [pid for pid in pids if alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return not left

    return wait
