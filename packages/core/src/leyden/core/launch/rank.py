# SPDX-License-Identifier: Apache-2.0
"""What a process of a run does at its start and end.

Nothing heavy is imported here: a rank guards itself before it imports torch.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from leyden.core.launch.siblings import Siblings

AGENT_PID = "LEYDEN_AGENT_PID"
RUN_FOLDER = "LEYDEN_RUN_DIR"
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
# what a rank of torchrun has, and a process that it starts with an environment of its own need not
_TORCHRUN = {"TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}
_PR_SET_PDEATHSIG = 1


class _Guard:
    """What this process knows of the one that started it.

    Attributes:
        marker: A file that stands while a verb runs; None where nobody looks for it.
        siblings: The other ranks, where those look for the marker and not the agent.
        pid: The process that was guarded; one that it forks is not.
        verbs: How many verbs run, one inside the other.
    """

    def __init__(self) -> None:
        self.marker: Path | None = None
        self.siblings: Siblings | None = None
        self.pid = 0
        self.verbs = 0


_GUARD = _Guard()


def guard_rank() -> None:
    """Let this process end with its agent, and let its agent learn why it fails.

    Does nothing outside of a run, and nothing the second time.
    """
    # taken out, for what this process starts is not a rank
    agent, folder = os.environ.pop(AGENT_PID, None), os.environ.pop(RUN_FOLDER, None)
    if _GUARD.pid == os.getpid() or (agent is None and not os.environ.keys() >= _TORCHRUN):
        return
    _GUARD.pid = os.getpid()
    if folder is not None:
        _GUARD.marker = busy_marker(folder, int(os.environ["LOCAL_RANK"]))
    if agent is None and _is_orphan():
        os._exit(1)
    die_with(os.getppid() if agent is None else int(agent))
    _report_uncaught()
    error_file = Path(os.environ.get(ERROR_FILE, ""))
    # a folder for every rank is torchrun's way; of others nothing is known
    if agent is None and error_file.parent.name == os.environ["LOCAL_RANK"]:
        _GUARD.siblings = Siblings(error_file)
        _GUARD.marker = _GUARD.siblings.marker
        _GUARD.siblings.watch(write_error)


def _is_orphan() -> bool:
    """Return whether torchrun has ended already: who takes its ranks over is no Python program."""
    parent = os.getppid()
    try:
        name = Path(f"/proc/{parent}/comm").read_text().strip()
        program = Path(f"/proc/{parent}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return False
    return (parent == 1 or name == "systemd") and b"python" not in program and b"torchrun" not in program


def busy_marker(folder: str | Path, local_rank: int) -> Path:
    """Return the file that stands while a verb runs in a rank."""
    return Path(folder) / f"rank-{local_rank}.busy"


def die_with(parent: int) -> None:
    """Let this process be killed when the one that started it ends, however that ends.

    Args:
        parent: Its number. If it has ended already, so does this one.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        import threading

        threading.Thread(target=_watch, args=(parent,), name="leyden-parent", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


@contextmanager
def busy() -> Generator[None, None, None]:
    """Tell the agent that the other ranks count on this one, for the length of a ``with`` block.

    A process that ends inside has failed, even with exit code 0.

    Examples:
        >>> from leyden.core.launch.rank import busy
        >>> with busy():
        ...     pass
    """
    # torchrun's ranks get their guard here, those of our agent have it
    guard_rank()
    marker = _GUARD.marker if _GUARD.pid == os.getpid() else None
    if marker is None:
        yield
        return
    _mark(marker)
    leaves = False
    try:
        yield
    except SystemExit as exit:
        if type(exit) is SystemExit:
            # torchrun looks at the code, but the other ranks do not learn of it
            leaves = not exit.code or _GUARD.siblings is not None
            if exit.code:
                # as after any uncaught error: what ends the process need not wait for the others
                sys.last_value = exit
        raise
    finally:
        _GUARD.verbs -= 1
        if not _GUARD.verbs and not leaves:
            with suppress(FileNotFoundError):
                marker.unlink()


def busy_until_exit() -> None:
    """Tell the agent that the other ranks count on this one until its program ends in an orderly way.

    Examples:
        >>> from leyden.core.launch.rank import busy_until_exit
        >>> busy_until_exit()
    """
    guard_rank()
    marker = _GUARD.marker if _GUARD.pid == os.getpid() else None
    if marker is not None:
        _mark(marker)
        atexit.register(marker.unlink, missing_ok=True)


def _mark(marker: Path) -> None:
    _GUARD.verbs += 1
    # whoever cleans the folder of temporary files up does not end a run
    with suppress(OSError):
        marker.write_text(str(os.getpid()))


def _report_uncaught() -> None:
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
        follows = _GUARD.siblings is not None and _GUARD.siblings.explain(error)
        write_error(error.with_traceback(frames), follows=follows)
        before(kind, error, frames)

    sys.excepthook = hook


def write_error(error: BaseException, *, shown: bool = True, code: int = 1, follows: bool = False) -> None:
    """Write why this rank fails where its agent looks for it, in the form of torch's agent.

    Args:
        error: What was raised.
        shown: Whether the traceback was printed.
        code: The exit code that comes of it.
        follows: Whether another rank had failed before.
    """
    path = os.environ.get(ERROR_FILE)
    if not path or _GUARD.pid != os.getpid():
        return
    import traceback

    text = "" if isinstance(error, SystemExit) else "".join(traceback.format_exception(error))
    now = time.time_ns()
    # torch's agent reads whole seconds, and takes the smallest for the cause
    extra: dict[str, Any] = {"py_callstack": text, "timestamp": str(now // 10**9 + follows)}
    extra |= {"time_ns": now, "shown": shown, "exit_code": code}
    message = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": extra}}
    draft = Path(f"{path}.draft")
    with suppress(OSError):
        draft.write_text(json.dumps(message))
        draft.replace(path)
