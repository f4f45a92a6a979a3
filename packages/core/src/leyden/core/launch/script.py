# SPDX-License-Identifier: Apache-2.0
"""Starts a run by running its script again, once for every device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leyden.core.errors import MisconfigurationException
from leyden.core.launch.command import module_command, split_command
from leyden.core.launch.group import PATIENCE


def suits_script() -> bool:
    """Return whether this program is a script that can run again: not a prompt, a notebook, ``-c`` code or a test.

    Examples:
        >>> from leyden.core.launch.script import suits_script
        >>> suits_script()
        False
    """
    if "pytest" in sys.modules or hasattr(sys, "ps1"):
        return False
    notebook = sys.modules.get("IPython")
    if notebook is not None and notebook.get_ipython() is not None:
        return False
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return False
    program = split_command(sys.orig_argv[1:])[1]
    if not program or program[0] in ("-", "-c"):
        return False
    return program[0] == "-m" or Path(program[0]).exists()


class ScriptLauncher:
    """Replaces this process by an agent that runs the script again in every rank.

    What stands above the call runs again there, and what stands behind it runs there only.

    Args:
        processes: How many on this machine.
        timeout: Seconds that the ranks may take for a final save after a signal; the environment variable
            ``LEYDEN_KILL_TIMEOUT``, or ten minutes, if None.
        num_nodes: How many machines the script is started on by hand, each with ``NODE_RANK``, ``MASTER_ADDR`` and
            ``MASTER_PORT`` set.
    """

    is_interactive_compatible = False

    def __init__(self, processes: int, timeout: float | None = None, num_nodes: int = 1) -> None:
        self.processes, self.timeout, self.num_nodes = processes, timeout, num_nodes

    @property
    def procs(self) -> Sequence[Any]:
        """None: the agent has them."""
        return ()

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in every rank. In the process that was started by hand this does not return.

        Args:
            function: What to run.
            *args: Its arguments.
            **kwargs: Its arguments by name.

        Returns:
            In a rank, what the function returned.

        Raises:
            MisconfigurationException: Several machines, and nothing says which one this is and where they meet.
        """
        if "LOCAL_RANK" in os.environ:
            return function(*args, **kwargs)
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if self.num_nodes > 1 and missing:
            raise MisconfigurationException(
                f"`num_nodes={self.num_nodes}` needs to know this machine and where all meet, but {', '.join(missing)}"
                " is not set. Start the script with torchrun on every machine, or set NODE_RANK, MASTER_ADDR and"
                " MASTER_PORT."
            )
        self._leave_nothing_behind()
        command = [*module_command("agent"), str(self.processes), str(self.num_nodes), str(self._timeout())]
        return os.execv(command[0], [*command, *sys.orig_argv[1:]])

    def kill(self, signum: int) -> None:
        """Do nothing: a signal goes to the agent, which has this process's number."""

    def _timeout(self) -> float:
        return float(os.environ.get("LEYDEN_KILL_TIMEOUT", PATIENCE)) if self.timeout is None else self.timeout

    def _leave_nothing_behind(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        multiprocessing = sys.modules.get("multiprocessing")
        # workers of a data loader look for their parent's number, which stays
        for child in multiprocessing.active_children() if multiprocessing is not None else ():
            child.kill()
            child.join()
