# SPDX-License-Identifier: Apache-2.0
"""A fresh process of `SpawnLauncher`: guards first, then fetches its work."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from leyden.core.launch.rank import guard_rank


def main(folder: Path) -> int:
    """Do the work that lies in a folder.

    Args:
        folder: The run's.

    Returns:
        The exit code.
    """
    guard_rank()
    # nothing has begun that a traceback could tell of
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # modules are found where the process that packed the work found them
    sys.path[:] = (folder / "path").read_text().split("\n")
    sys.argv = [""]
    from leyden.core.launch import parcel

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return parcel.run(lambda: parcel.read(folder / "work"), folder, int(os.environ["RANK"]))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
