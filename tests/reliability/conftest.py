# SPDX-License-Identifier: Apache-2.0
"""What the harness shares: processes that are killed, and what must stand afterwards."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from leyden.core.checkpoint import file
from leyden.core.errors import WARNED


@pytest.fixture(autouse=True)
def _warnings_start_afresh():
    WARNED.clear()
    yield
    WARNED.clear()


class Victims:
    """A process that forks a training for every job."""

    def __init__(self, scratch):
        program = [sys.executable, str(Path(__file__).with_name("victim.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen(program, env=environment, cwd=scratch, **pipes)
        self.hear("ready")

    def hear(self, *words):
        line = self.process.stdout.readline().split()
        assert line, "the program that forks the trainings is gone"
        assert line[0] in words, line
        return line

    def start(self, **job):
        self.process.stdin.write(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in job.items()}) + "\n")
        return int(self.hear("pid")[1])

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def victims(tmp_path_factory):
    started = Victims(tmp_path_factory.mktemp("forks"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def whole(victims, tmp_path_factory):
    """What a run that nobody disturbs and that saves nothing ends with."""
    found = {}

    def end(width):
        if width not in found:
            folder = tmp_path_factory.mktemp("whole")
            victims.start(folder=folder, scratch=folder, width=width, saver=None)
            victims.hear("stepping")
            assert victims.hear("ended")[1] == "0", (folder / "log.txt").read_text()
            found[width] = json.loads((folder / "end.json").read_text())
        return found[width]

    return end


@pytest.fixture(scope="session")
def undisturbed(victims, tmp_path_factory):
    """Names of the files that a run leaves that nobody disturbs, and the seconds that its steps take."""
    found = {}

    def files(width, saver, beside):
        key = width, saver, beside
        if key not in found:
            folder = tmp_path_factory.mktemp("undisturbed")
            victims.start(folder=folder, scratch=folder, width=width, saver=saver, beside=beside)
            victims.hear("stepping")
            began = time.monotonic()
            assert victims.hear("ended")[1] == "0", (folder / "log.txt").read_text()
            names = sorted(path.name for path in (folder / "checkpoints").iterdir())
            found[key] = names, time.monotonic() - began
            shutil.rmtree(folder)
        return found[key]

    return files


class Chain:
    """Trainings in one folder, each of which goes on where the one before was killed."""

    def __init__(self, victims, folder, scratch, **job):
        self.victims, self.folder, self.scratch, self.job = victims, folder, scratch, job
        self.checkpoints = folder / "checkpoints"
        self.newest, self.kills, self.in_saves, self.fresh = 0, 0, 0, 0
        folder.mkdir()

    def log(self):
        return (self.folder / "log.txt").read_text()

    def step(self, wait=None, at=None):
        """Train until it is killed or through; returns whether it is through. ``wait`` is told when it steps."""
        self.pid = self.victims.start(folder=self.folder, scratch=self.scratch, at=at, **self.job)
        if wait is not None:
            wait(None)
        word = self.victims.hear("stepping", "ended")
        if word[0] == "stepping":
            self.began(int(word[1]))
            if wait is not None:
                wait(int(word[1]))
            word = self.victims.hear("ended")
        assert word[1] in ("0", "-9"), self.log()
        self.look(killed=word[1] == "-9")
        return word[1] == "0"

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # it was through before
            os.kill(self.pid, signal.SIGKILL)

    def began(self, step):
        assert step == self.newest, f"gone on from step {step}, but step {self.newest} was saved: {self.log()}"
        self.fresh += step == 0
        dead = [p for p in self.checkpoints.glob(".*") if f".{self.pid}." not in p.name]
        assert dead == [], "left by dead processes"

    def look(self, killed):
        """Every file under a final name is whole, none that stood is lost, and nothing is left elsewhere."""
        steps, finished = [0], False
        for path in sorted(self.checkpoints.glob("*.ckpt")):
            file.verify(path)
            state = file.load(path)
            assert torch.isfinite(state["state_dict"]["square.weight"]).all()
            steps.append(state["global_step"])
            record = file.read_record(path)
            assert record["step"] == state["global_step"]
            finished = finished or record["finished"]
        assert max(steps) >= self.newest, f"step {self.newest} was saved and is lost: {self.log()}"
        self.newest = max(steps)
        self.in_saves += killed and any(self.checkpoints.glob(".*.tmp"))
        if killed and finished:
            # it was killed on its way out; a run that is finished is not gone on with
            shutil.rmtree(self.checkpoints)
            self.newest = 0
        self.kills += killed
        if self.scratch != self.folder:
            left = [p.name for p in self.scratch.iterdir() if not p.name.startswith("torchinductor")]  # torch's cache
            assert left == []

    def end(self):
        return json.loads((self.folder / "end.json").read_text())

    def names(self):
        return sorted(path.name for path in self.checkpoints.iterdir())


@pytest.fixture
def chain(victims, tmp_path):
    """Begin chains, with temporary files on the checkpoints' file system or on another one."""
    made, elsewhere = [], []

    def begin(place="same", **job):
        folder = tmp_path / f"chain{len(made)}"
        scratch = folder
        if place == "other":
            scratch = Path(tempfile.mkdtemp(dir="/dev/shm"))
            elsewhere.append(scratch)
            assert scratch.stat().st_dev != tmp_path.stat().st_dev
        made.append(folder)
        return Chain(victims, folder, scratch, **job)

    yield begin
    for folder in made + elsewhere:
        shutil.rmtree(folder)


@pytest.fixture
def chance(request):
    """Random numbers that are other ones in every test and the same in every run."""
    return random.Random(request.node.name)
