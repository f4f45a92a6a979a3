# SPDX-License-Identifier: Apache-2.0
"""The process that starts the ranks of a script, forwards signals to them, and ends them when one fails.

It gives its ranks what torch's elastic agent gives its workers, so that a script can not tell the two apart. It is its
own process image, started by `ScriptLauncher`, and imports torch only beside the ranks, to host their store.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leyden.core.launch.command import keeps_path_safe, module_command, split_command
from leyden.core.launch.group import LEAVING, SETTLE, TICK, CaughtSignals, RankGroup
from leyden.core.launch.rank import AGENT_PID, ERROR_FILE, RUN_FOLDER, busy_marker

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Failure:
    """Why a run failed.

    Attributes:
        rank: The global rank that failed first.
        pid: Its process.
        code: Its exit code; negative for a signal.
        traceback: What it raised, if it raised and nobody has printed that yet.
        raised: The exception in one line.
    """

    rank: int
    pid: int
    code: int
    traceback: str = ""
    raised: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of the whole run."""
        return 128 - self.code if self.code < 0 else self.code or 1

    def __str__(self) -> str:
        if self.raised:
            how = f"raised {self.raised.splitlines()[0]}"
        elif self.code < 0:
            how = f"was killed by {signal.Signals(-self.code).name}"
        else:
            how = f"left with exit code {self.code}" + ("" if self.code else " in the middle of a run")
        return f"Rank {self.rank} (pid {self.pid} on {socket.gethostname()}) {how}; the other ranks were ended."


@dataclass
class Run:
    """What the ranks of this machine are started with.

    Attributes:
        processes: How many.
        nodes: On how many machines.
        patience: Seconds for a final save after a signal.
        command: How the program was started.
        folder: Where ranks leave word.
    """

    processes: int
    nodes: int
    patience: float
    command: list[str]
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="leyden-run-")))

    @property
    def first_rank(self) -> int:
        """The global rank of this machine's first process."""
        return self.node * self.processes

    @property
    def node(self) -> int:
        """The number of this machine."""
        return int(os.environ.get("NODE_RANK", 0)) if self.nodes > 1 else 0

    def start(self) -> RankGroup:
        """Start the ranks."""
        flags, program = split_command(self.command)
        path = "safe" if keeps_path_safe(flags) else "beside"
        command = [*module_command("rank_main", flags), path, *program]
        shared = self._shared_environment()
        group = RankGroup([])
        for local_rank in range(self.processes):
            group.processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **shared, **self._own_environment(local_rank)},
                    # a session of its own: Ctrl-C comes once, through the agent, and workers end with their rank
                    start_new_session=True,
                    stdin=None if local_rank == 0 else subprocess.DEVNULL,
                )
            )
        return group

    def _shared_environment(self) -> dict[str, str]:
        world = str(self.processes * self.nodes)
        run_id = uuid.uuid4().hex
        environment = {
            "WORLD_SIZE": world,
            "ROLE_WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": str(self.processes),
            "GROUP_RANK": str(self.node),
            "GROUP_WORLD_SIZE": str(self.nodes),
            "ROLE_NAME": "default",
            "TORCHELASTIC_RUN_ID": run_id,
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_USE_AGENT_STORE": str(self.nodes == 1),
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
            AGENT_PID: str(os.getpid()),
            RUN_FOLDER: str(self.folder),
        }
        if self.nodes == 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(host_store())}
        if "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(max(1, _cores() // self.processes))
        return environment

    def _own_environment(self, local_rank: int) -> dict[str, str]:
        rank = str(self.first_rank + local_rank)
        own = {"RANK": rank, "ROLE_RANK": rank, "LOCAL_RANK": str(local_rank)}
        return own | {ERROR_FILE: str(self.error_file(local_rank))}

    def error_file(self, local_rank: int) -> Path:
        """Return where a rank says what it raised."""
        return self.folder / f"rank-{local_rank}.json"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_store() -> int:
    """Host the store at which the ranks meet, and return its port.

    The port listens at once, so that nobody else can take it; torch answers as soon as it is imported.
    """
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    port: int = listening.getsockname()[1]
    threading.Thread(target=_answer, args=(listening.detach(), port), name="leyden-store", daemon=True).start()
    return port


def _answer(listening: int, port: int) -> None:
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening)
    except BaseException:
        # without a store no rank gets anywhere
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    # it lives as long as somebody holds it
    threading.Event().wait()
    del store


def supervise(run: Run, group: RankGroup, signals: CaughtSignals) -> int:
    """Wait for the ranks.

    Returns:
        The exit code of the run: 0, that of the rank that failed first, or 128 plus the number of a signal.
    """
    passed_on = 0
    while True:
        for signum in signals.seen[passed_on:]:
            if signum in ENDING:
                return interrupt(run, group, signals, signum)
            group.send(signum)
            passed_on += 1
        codes = group.codes()
        if all(code == 0 for code in codes):
            return 0
        failed = _failed(run, codes)
        if failed:
            failure = _first(run, group, failed)
            if failure is None:
                return 0
            _say(failure)
            group.end()
            return failure.exit_code
        time.sleep(TICK)


def interrupt(run: Run, group: RankGroup, signals: CaughtSignals, signum: int) -> int:
    """Pass on a signal that ends the run, and wait for the ranks to save; a second one ends them at once."""
    group.send(signum)
    first = sum(s in ENDING for s in signals.seen)
    group.wait(run.patience, until=lambda: sum(s in ENDING for s in signals.seen) > first)
    for local_rank, code in enumerate(group.codes()):
        # a save that failed is worth a word, the signal itself is not
        if code == 1 and (failure := _failure(run, group, local_rank)).traceback:
            _say(failure)
            break
    group.end(grace=0)
    return 128 + signum


def _failed(run: Run, codes: Sequence[int | None]) -> list[int]:
    """Return the local ranks that have failed, those without a word first."""
    raised = [i for i, code in enumerate(codes) if code != 0 and run.error_file(i).exists()]
    silent = [i for i, code in enumerate(codes) if code and i not in raised]
    left = [i for i, code in enumerate(codes) if code == 0 and busy_marker(run.folder, i).exists()]
    return [*silent, *left, *raised]


def _first(run: Run, group: RankGroup, failed: Sequence[int]) -> Failure | None:
    """Return the failure that the others follow from, or None if all ranks left together with exit code 0."""
    silent = [i for i in failed if not run.error_file(i).exists()]
    if silent:
        if group.codes()[silent[0]] == 0:
            group.wait(LEAVING, until=lambda: any(code not in (0, None) for code in group.codes()))
            if all(code == 0 for code in group.codes()):
                return None
        return _failure(run, group, silent[0])
    # who raised first: the others lost their connection to it
    group.wait(SETTLE)
    written = [i for i in range(run.processes) if run.error_file(i).exists()]
    times = {i: _word(run, i).get("time_ns", time.time_ns()) for i in written}
    return _failure(run, group, min(times, key=times.__getitem__))


def _word(run: Run, local_rank: int) -> dict[str, Any]:
    """Return what a rank wrote about its failure; empty if it wrote nothing."""
    try:
        message = json.loads(run.error_file(local_rank).read_text())["message"]
        return {"message": message["message"], **message["extraInfo"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _failure(run: Run, group: RankGroup, local_rank: int) -> Failure:
    process, word = group.processes[local_rank], _word(run, local_rank)
    traceback = word.get("py_callstack", "")
    return Failure(
        rank=run.first_rank + local_rank,
        pid=process.pid,
        code=process.poll() or word.get("exit_code", 0),
        traceback="" if word.get("shown") else traceback,
        raised=word.get("message", "") if traceback else "",
    )


def _say(failure: Failure) -> None:
    sys.stderr.write(f"{failure.traceback}{failure}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Start the ranks of a program and wait for them.

    Args:
        arguments: Processes, machines, seconds for a final save, and how the program was started.

    Returns:
        The exit code.
    """
    signals = CaughtSignals((*ENDING, *PASSED_ON))
    processes, nodes, patience, *command = arguments
    run = Run(int(processes), int(nodes), float(patience), command)
    group = RankGroup([])
    try:
        group = run.start()
        return supervise(run, group, signals)
    finally:
        if group.running():
            group.end(grace=0)
        shutil.rmtree(run.folder, ignore_errors=True)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # the store's thread may still be importing torch, and there is nothing left to wait for
    os._exit(code)
