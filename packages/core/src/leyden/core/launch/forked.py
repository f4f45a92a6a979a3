# SPDX-License-Identifier: Apache-2.0
"""A rank that is a copy of the process that starts it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from leyden.core.launch import parcel
from leyden.core.launch.rank import die_with


class Forked:
    """A copy of this process, which runs a function and ends.

    Args:
        work: The function, its arguments and its arguments by name.
        folder: Where it leaves its result.
        rank: Its number.
        environment: Variables that it sets.

    Attributes:
        pid: The number of the process.
    """

    def __init__(self, work: Any, folder: Path, rank: int, environment: dict[str, str]) -> None:
        self._code: int | None = None
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads, which torch always has; who asks for a fork has decided
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _become_rank(work, folder, rank, environment, parent)

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _become_rank(work: Any, folder: Path, rank: int, environment: dict[str, str], parent: int) -> None:
    """Run the function and end the process: it never returns to the copied stack."""
    code = 1
    # a copied store that is collected here would wait for the thread that serves it, which only the parent has
    gc.freeze()
    try:
        os.setsid()
        die_with(parent)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(environment)
        # several would wait for threads of OpenMP that only the parent has
        torch.set_num_threads(1)
        code = parcel.run(lambda: work, folder, rank)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1 if exit.code else 0
    except BaseException:  # noqa: BLE001 - nothing may reach the stack of the process that was copied
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
