# SPDX-License-Identifier: Apache-2.0
"""The other ranks that torchrun has started on this machine, which a rank of it looks after.

torchrun takes a rank that leaves with exit code 0 for one that is done, however long the others wait for it, and it
waits half a minute for a rank that hangs after another one has failed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from leyden.core.launch.group import GRACE, LEAVING, SETTLE, TICK

INTERVAL = 1.0


class Siblings:
    """What one rank knows of the others, from the folders in which torchrun looks for what its ranks have raised.

    Args:
        error_file: Where this rank says what it raised; the others do so in folders beside its own.

    Attributes:
        marker: The file that holds this rank's process while it is in a verb.
    """

    def __init__(self, error_file: Path) -> None:
        own, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        folders = error_file.parent.parent
        self.marker = error_file.with_name("busy")
        self._error_files = {rank: folders / str(rank) / error_file.name for rank in range(count) if rank != own}

    def failed(self) -> bool:
        """Return whether one of them has said what it raised: its program is about to end, and the run with it."""
        return any(file.exists() for file in self._error_files.values())

    def gone(self) -> tuple[int, int] | None:
        """Return the local rank and the process of one that has ended in the middle of a verb."""
        for local_rank, file in self._error_files.items():
            try:
                pid = int(file.with_name(self.marker.name).read_text())
            except (OSError, ValueError):
                # it is in no verb, or is only just entering one
                continue
            if _has_ended(pid):
                return local_rank, pid
        return None

    def explain(self, error: BaseException) -> bool:
        """Note in an error that another rank was gone before.

        Returns:
            Whether one of them had failed before.
        """
        until = time.monotonic() + SETTLE
        while not (gone := self.gone()) and not self.failed() and time.monotonic() < until:
            # a connection breaks before its process has quite ended
            time.sleep(TICK)
        if gone:
            error.add_note(f"{_name(*gone)} had left in the middle of the run before.")
        return gone is not None or self.failed()

    def watch(self, report: Callable[[BaseException], None]) -> None:
        """Look after them for as long as this process lives, and end it once it can not go on without them.

        Args:
            report: Tells torchrun why this process ends.
        """
        if self._error_files:
            threading.Thread(target=self._watch, args=(report,), name="leyden-siblings", daemon=True).start()

    def _watch(self, report: Callable[[BaseException], None]) -> None:
        while True:
            time.sleep(INTERVAL)
            if self.failed():
                time.sleep(GRACE)
                self._end_stuck()
            elif self.gone():
                # others may be about to leave as well, as the script says, or to say what they raise
                time.sleep(LEAVING)
                left = self.gone()
                if left and not self.failed():
                    self._end_alone(*left, report)

    def _end_stuck(self) -> None:
        """End this process, which has not noticed that the run is over, and show where it was."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        own = _name(int(os.environ["LOCAL_RANK"]), os.getpid())
        _end(f"{own} went on after another one had failed, and ends here:\n{stack}")

    def _end_alone(self, local_rank: int, pid: int, report: Callable[[BaseException], None]) -> None:
        from leyden.core.errors import RankFailedError

        error = RankFailedError(f"{_name(local_rank, pid)} left in the middle of a run; the other ranks end as well.")
        report(error)
        _end(f"{error}\n")


def _name(local_rank: int, pid: int) -> str:
    rank = int(os.environ["RANK"]) - int(os.environ["LOCAL_RANK"]) + local_rank
    return f"Rank {rank} (pid {pid} on {socket.gethostname()})"


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # one that torchrun has not collected yet still has its number
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _end(words: str) -> None:
    # past the buffers and locks of a main thread that may hang in them
    os.write(2, words.encode(errors="replace"))
    os._exit(1)
