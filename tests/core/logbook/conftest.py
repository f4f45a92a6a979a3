"""Two gloo processes, started once for the session, that run functions of the test files of this folder."""

import importlib.util
import multiprocessing
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

WORLD = 2


def _load(path):
    name = f"pooled_{Path(path).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _work(rank, rendezvous, pipe):
    torch.set_num_threads(1)
    store = dist.FileStore(rendezvous, WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=60))
    while True:
        task = pipe.recv()
        if task is None:
            break
        path, name, args = task
        try:
            pipe.send((True, getattr(_load(path), name)(rank, *args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class Pool:
    """Runs ``function(rank, *args)`` of a test file on both ranks and returns both results."""

    def __init__(self, rendezvous):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(WORLD):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(rank, rendezvous, there), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, function, *args):
        for pipe in self.pipes:
            pipe.send((function.__code__.co_filename, function.__name__, args))
        answers = [pipe.recv() if pipe.poll(120) else (False, "no answer within 120 s") for pipe in self.pipes]
        for rank, (fine, answer) in enumerate(answers):
            assert fine, f"rank {rank} failed:\n{answer}"
        return [answer for _, answer in answers]

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    pool = Pool(str(tmp_path_factory.mktemp("pool") / "rendezvous"))
    yield pool
    pool.close()
