# SPDX-License-Identifier: Apache-2.0
"""Who a process is, and where the processes of a run meet."""

from __future__ import annotations

import os
import re
import socket
from abc import ABC, abstractmethod
from pathlib import Path

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.ranks import rank_zero_only


class ClusterEnvironment(ABC):
    """What knows the processes of a run: who they are, and where they meet.

    A package adds one of its own through the entry-point group ``leyden.environments``.
    """

    @property
    @abstractmethod
    def creates_processes_externally(self) -> bool:
        """Whether somebody else has started the processes already."""

    @property
    @abstractmethod
    def main_address(self) -> str:
        """Address of the machine where all processes meet."""

    @property
    @abstractmethod
    def main_port(self) -> int:
        """Port where all processes meet."""

    @staticmethod
    @abstractmethod
    def detect() -> bool:
        """Return whether this process runs in such an environment."""

    @abstractmethod
    def world_size(self) -> int:
        """Return how many processes there are."""

    @abstractmethod
    def set_world_size(self, size: int) -> None:
        """Take over how many processes there are, where nobody else decides it."""

    @abstractmethod
    def global_rank(self) -> int:
        """Return the number of this process among all."""

    @abstractmethod
    def set_global_rank(self, rank: int) -> None:
        """Take over the number of this process among all, where nobody else decides it."""

    @abstractmethod
    def local_rank(self) -> int:
        """Return the number of this process on its machine."""

    @abstractmethod
    def node_rank(self) -> int:
        """Return the number of this machine."""

    # a hook that an environment may leave alone
    def validate_settings(self, num_devices: int, num_nodes: int) -> None:  # noqa: B027
        """Compare what the user asked for with the processes that there are.

        Args:
            num_devices: Devices per machine.
            num_nodes: Machines.
        """

    def teardown(self) -> None:  # noqa: B027
        """Undo what this environment has set."""


class LightningEnvironment(ClusterEnvironment):
    """Processes on this machine, which the Trainer starts.

    Whoever starts them by hand instead sets ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``, and on several machines
    ``NODE_RANK``.

    Examples:
        >>> from leyden.core.launch.environment import LightningEnvironment
        >>> environment = LightningEnvironment()
        >>> environment.creates_processes_externally, environment.global_rank(), environment.world_size()
        (False, 0, 1)
    """

    def __init__(self) -> None:
        self._port: int | None = None
        self._rank, self._size = 0, 1

    @property
    def creates_processes_externally(self) -> bool:
        """Whether the user has started the processes."""
        return "LOCAL_RANK" in os.environ

    @property
    def main_address(self) -> str:
        """Address of the machine where all processes meet; this one unless ``MASTER_ADDR`` is set."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port where all processes meet; a free one unless ``MASTER_PORT`` is set."""
        if self._port is None:
            self._port = int(os.environ["MASTER_PORT"]) if "MASTER_PORT" in os.environ else find_free_port()
        return self._port

    @staticmethod
    def detect() -> bool:
        """Return True: what is left when no other environment is found."""
        return True

    def world_size(self) -> int:
        """Return how many processes there are."""
        return self._size

    def set_world_size(self, size: int) -> None:
        """Take over how many processes there are."""
        self._size = size

    def global_rank(self) -> int:
        """Return the number of this process among all."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Take over the number of this process among all."""
        self._rank = rank
        rank_zero_only.rank = rank

    def local_rank(self) -> int:
        """Return the number of this process on its machine."""
        return int(os.environ.get("LOCAL_RANK", 0))

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Count the processes: where they were started by hand, this is all there is to know them by."""
        if self.creates_processes_externally:
            self.set_world_size(num_devices * num_nodes)
            self.set_global_rank(self.node_rank() * num_devices + self.local_rank())


class TorchElasticEnvironment(ClusterEnvironment):
    """Processes that torchrun has started, or anybody who sets the variables that it sets."""

    @property
    def creates_processes_externally(self) -> bool:
        """True: the processes are there."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the machine where all processes meet."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Port where all processes meet."""
        return int(os.environ.get("MASTER_PORT", "12910"))

    @staticmethod
    def detect() -> bool:
        """Return whether torchrun, or somebody who sets the same variables, has started this process."""
        by_hand = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))
        return by_hand or ("TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ)

    def world_size(self) -> int:
        """Return how many processes there are."""
        return int(os.environ["WORLD_SIZE"])

    def set_world_size(self, size: int) -> None:
        """Change nothing: the launcher decides."""

    def global_rank(self) -> int:
        """Return the number of this process among all."""
        return int(os.environ["RANK"])

    def set_global_rank(self, rank: int) -> None:
        """Change nothing: the launcher decides."""

    def local_rank(self) -> int:
        """Return the number of this process on its machine."""
        return int(os.environ["LOCAL_RANK"])

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return int(os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", 0)))

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Compare what the user asked for with the processes that there are.

        Raises:
            MisconfigurationValueError: They differ.
        """
        check_world((num_devices, num_nodes), self.world_size(), elastic=elastic_launch())


def elastic_launch() -> bool:
    """Return whether torchrun may run with fewer machines than at most (``--nnodes=1:4``).

    It does not tell its processes, so this looks at how it was started. Where that is not to be seen,
    ``LEYDEN_ELASTIC=1`` says so.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    if os.environ.get("LEYDEN_ELASTIC", "0") not in ("", "0"):
        return True
    command = Path(f"/proc/{os.getppid()}/cmdline")
    words = command.read_text(errors="replace") if command.exists() else ""
    given = re.search(r"--nnodes[=\0](\d+:\d+)", words)
    least, _, most = (given[1] if given else os.environ.get("PET_NNODES", "1")).partition(":")
    return bool(most) and least != most


def check_world(asked: tuple[int, int], obtained: int, elastic: bool) -> None:
    """Compare the processes that the user asked for with those that there are.

    Args:
        asked: Devices per machine, and machines.
        obtained: How many processes were started.
        elastic: Whether there may be fewer.

    Raises:
        MisconfigurationValueError: There are more or, unless it is an elastic launch, fewer.

    Examples:
        >>> from leyden.core.launch.environment import check_world
        >>> check_world((2, 1), 2, elastic=False)
    """
    devices, nodes = asked
    if obtained == devices * nodes or (elastic and obtained < devices * nodes):
        return
    raise MisconfigurationValueError(
        f"You set `devices={devices}` and `num_nodes={nodes}`, but the product ({devices} * {nodes}) does not match the"
        f" world size ({obtained}) of the launch. Start {devices} processes on each of {nodes} machines, or let the"
        " Trainer follow the launch with `devices='auto'` and the `num_nodes` of the launch. Under an elastic torchrun,"
        " LEYDEN_ELASTIC=1 allows fewer."
    )


def find_free_port() -> int:
    """Return a port of this machine that nobody uses; ``STANDALONE_PORT`` if that is set."""
    if "STANDALONE_PORT" in os.environ:
        return int(os.environ["STANDALONE_PORT"])
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


_DETECTED: tuple[type[ClusterEnvironment], ...] = (TorchElasticEnvironment,)


def choose_environment() -> ClusterEnvironment:
    """Return what knows the processes of this run.

    torchrun's variables come first, for they stand in every process that it starts; then what other packages add, and
    last this machine alone.

    Raises:
        MisconfigurationException: An entry point does not lead to a `ClusterEnvironment`.

    Examples:
        >>> from leyden.core.launch.environment import choose_environment
        >>> type(choose_environment()).__name__
        'LightningEnvironment'
    """
    for kind in _DETECTED:
        if kind.detect():
            return kind()
    from importlib.metadata import entry_points

    for entry in entry_points(group="leyden.environments"):
        found = entry.load()
        if not (isinstance(found, type) and issubclass(found, ClusterEnvironment)):
            raise MisconfigurationException(
                f"The entry point {entry.name!r} in leyden.environments must be a ClusterEnvironment; got {found!r}."
            )
        if found.detect():
            return found()
    return LightningEnvironment()
