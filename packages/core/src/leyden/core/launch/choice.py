# SPDX-License-Identifier: Apache-2.0
"""Which launcher starts the processes of a run."""

from __future__ import annotations

from leyden.core.errors import MisconfigurationValueError
from leyden.core.launch.environment import ClusterEnvironment
from leyden.core.launch.launcher import Launcher


def choose_launcher(
    environment: ClusterEnvironment, method: str, processes: int, num_nodes: int = 1
) -> Launcher | None:
    """Return what starts the processes on this machine, or None where somebody else has.

    Args:
        environment: What knows the processes.
        method: ``"popen"`` to run the script again, or how `multiprocessing` starts a process.
        processes: How many on this machine.
        num_nodes: How many machines take part.

    Raises:
        MisconfigurationValueError: Several machines, and no script that could run on each.
    """
    if environment.creates_processes_externally:
        return None
    from leyden.core.launch.script import ScriptLauncher, suits_script
    from leyden.core.launch.spawn import SpawnLauncher

    if method == "popen" and suits_script():
        return ScriptLauncher(processes, num_nodes=num_nodes)
    if num_nodes > 1:
        raise MisconfigurationValueError(
            f"`num_nodes={num_nodes}` needs a script, started with torchrun on every machine; a notebook, a prompt, a"
            " test, and strategies that spawn or fork use the devices of one machine. Use `num_nodes=1`."
        )
    return SpawnLauncher(processes, "spawn" if method == "popen" else method)
