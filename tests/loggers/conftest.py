import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def read_events(folder):
    """Every event in the folder, file by file in TensorBoard's order, by its own reader."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    events = []
    for path in sorted(Path(folder).glob("*tfevents*")):
        events += [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    return events


def read_scalars(folder):
    """(step, value) by tag, in the order of writing."""
    found = {}
    for event in read_events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture
def events():
    return read_events


@pytest.fixture
def scalars():
    return read_scalars


@pytest.fixture
def shown():
    """What TensorBoard itself makes of a folder: (step, value) by tag, after its own purging."""

    def read(folder):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        accumulator.Reload()
        return {
            tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"]
        }

    return read


@pytest.fixture
def start(tmp_path):
    """Start a Python process on a piece of code; what is still running at the end of the test is killed."""
    started = []

    def begin(code, *arguments, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
            **options,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_code(start):
    """Run a piece of code in a fresh process and return what it printed."""

    def run(code, *arguments, **options):
        process = start(code, *arguments, **options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out.strip()

    return run
