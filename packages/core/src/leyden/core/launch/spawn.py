# SPDX-License-Identifier: Apache-2.0
"""Starts a run from a notebook, a prompt or a test: a function in fresh processes, whose result comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from leyden.core.errors import (
    Interrupted,
    MisconfigurationRuntimeError,
    MisconfigurationValueError,
    RankFailedError,
)
from leyden.core.launch import parcel
from leyden.core.launch.command import module_command, split_command
from leyden.core.launch.forked import Forked
from leyden.core.launch.group import PATIENCE, SETTLE, TICK, CaughtSignals, RankGroup, RankProcess
from leyden.core.launch.rank import AGENT_PID

START_METHODS = ("spawn", "fork", "forkserver")


class SpawnLauncher:
    """Runs a function in processes of its own, and hands back what the first of them returns.

    Tensors come back by value, on the CPU.

    Args:
        processes: How many.
        start_method: ``"spawn"`` for fresh processes (``"forkserver"`` is taken for the same), ``"fork"`` for copies of
            this one, which see its objects as they are but can not use a GPU that it has used.

    Examples:
        >>> from leyden.core.launch.spawn import SpawnLauncher
        >>> SpawnLauncher(1).launch(sum, [1, 2])
        3
    """

    is_interactive_compatible = True

    def __init__(self, processes: int, start_method: str = "spawn") -> None:
        if start_method not in START_METHODS:
            raise MisconfigurationValueError(
                f"`start_method` must be one of {', '.join(START_METHODS)}; got {start_method!r}."
            )
        self.processes, self.start_method = processes, start_method
        self._group = RankGroup([])

    @property
    def procs(self) -> Sequence[RankProcess]:
        """The processes that run."""
        return self._group.running()

    def kill(self, signum: int) -> None:
        """Send a signal to all processes."""
        self._group.send(signum)

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in every process.

        Args:
            function: What to run.
            *args: Its arguments.
            **kwargs: Its arguments by name.

        Returns:
            What the first process returned.

        Raises:
            RankFailedError: A process ended before it returned. What a process raises is raised here.
        """
        work = (function, args, kwargs)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with tempfile.TemporaryDirectory(prefix="leyden-run-") as name:
            folder = Path(name)
            main = threading.current_thread() is threading.main_thread()
            caught = CaughtSignals((signal.SIGINT, signal.SIGTERM) if main else ())
            try:
                self._start(work, folder, store.port)
                self._wait(folder, caught)
            finally:
                # also where what goes wrong goes wrong here
                self._group.end(grace=0)
                self._group = RankGroup([])
                caught.release()
                # a traceback that is kept, as a prompt does, would keep its port as well
                del store
            return parcel.read(folder / "result-0")

    def _start(self, work: Any, folder: Path, port: int) -> None:
        shared = self._environment(port)
        self._group = RankGroup([])
        if self.start_method == "fork":
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                raise MisconfigurationRuntimeError(
                    "Lightning can't create new processes by forking if CUDA is already initialized: a copy of this"
                    " process can not use the GPU. Use `strategy='ddp_spawn'`, or restart and touch no GPU before."
                )
            for rank in range(self.processes):
                self._group.processes.append(Forked(work, folder, rank, {**shared, **_own(rank)}))
            return
        parcel.write(work, folder / "work", what="what the processes are to run (the model, the data, the trainer)")
        (folder / "path").write_text("\n".join(path for path in sys.path if isinstance(path, str)))
        command = [*module_command("spawn_main", split_command(sys.orig_argv[1:])[0]), str(folder)]
        for rank in range(self.processes):
            environment = {**os.environ, **shared, **_own(rank), AGENT_PID: str(os.getpid())}
            self._group.processes.append(
                subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL)
            )

    def _environment(self, port: int) -> dict[str, str]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        world = str(self.processes)
        return {
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            # this process hosts the store
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // self.processes))),
        }

    def _wait(self, folder: Path, caught: CaughtSignals) -> None:
        group, sent = self._group, 0
        while True:
            if len(caught.seen) > 1:
                group.end(grace=0)
            if sent < len(caught.seen):
                group.send(caught.seen[0])
                sent = len(caught.seen)
            codes = group.codes()
            done = [(folder / f"result-{rank}").exists() for rank in range(len(codes))]
            if all(code == 0 for code in codes) and all(done):
                return
            failed = [rank for rank, code in enumerate(codes) if code is not None and not (code == 0 and done[rank])]
            if failed:
                if caught.seen:
                    group.wait(PATIENCE, until=lambda: len(caught.seen) > 1)
                    raise self._interrupted(caught.seen[0])
                raise self._error(folder, failed)
            group.wait(TICK)

    def _interrupted(self, signum: int) -> BaseException:
        return KeyboardInterrupt() if signum == signal.SIGINT else Interrupted(signum)

    def _error(self, folder: Path, failed: Sequence[int]) -> BaseException:
        """Return what to raise for the process that failed first."""
        silent = [rank for rank in failed if not (folder / f"error-{rank}").exists()]
        if silent:
            return self._ended(silent[0])
        # the others may be about to say what they lost the connection by
        self._group.wait(SETTLE)
        written = [rank for rank in range(self.processes) if (folder / f"error-{rank}").exists()]
        words = {rank: parcel.read(folder / f"error-{rank}") for rank in written}
        first = min(words, key=lambda rank: words[rank].time_ns)
        return parcel.error_of(words[first], first)

    def _ended(self, rank: int) -> RankFailedError:
        process = self._group.processes[rank]
        code = process.poll() or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return RankFailedError(
            f"Rank {rank} (pid {process.pid}) {how} before it had a result; the other ranks were ended."
        )


def _own(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}
