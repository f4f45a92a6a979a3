# SPDX-License-Identifier: Apache-2.0
"""What strategies of several processes share: the process group, the ranks, and what goes from one to another."""

from __future__ import annotations

import atexit
import gc
import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError
from leyden.core.precision.precision import Precision
from leyden.core.strategies.differentiable import Gathered
from leyden.core.strategies.strategy import Strategy

if TYPE_CHECKING:
    from leyden.core.launch.environment import ClusterEnvironment

T = TypeVar("T")
# the first may wait for data that one process prepares, the second only for the slowest step, save or evaluation
TIMEOUTS = (timedelta(minutes=30), timedelta(minutes=10))
Timeout = timedelta | float | tuple[timedelta | float, timedelta | float] | None


def timeouts_of(given: Timeout) -> tuple[timedelta, timedelta]:
    """Return how long processes wait for each other: until the first step is done, and from then on.

    Args:
        given: One value or a pair of them, as `timedelta` or seconds; None for 30 and 10 minutes.

    Raises:
        MisconfigurationTypeError: It is something else.
        MisconfigurationValueError: It is not above 0.
    """
    if given is None:
        return TIMEOUTS
    pair = given if isinstance(given, (tuple, list)) else (given, given)
    numbers = all(isinstance(each, (int, float, timedelta)) and not isinstance(each, bool) for each in pair)
    if len(pair) != 2 or not numbers:
        raise MisconfigurationTypeError(
            f"`timeout` takes seconds, a timedelta, or a pair of them (start-up, step); got {given!r}."
        )
    startup, step = (each if isinstance(each, timedelta) else timedelta(seconds=each) for each in pair)
    if min(startup, step) <= timedelta(0):
        raise MisconfigurationValueError(f"`timeout` must be above 0; got {given!r}.")
    return startup, step


class ParallelStrategy(Strategy):
    """Several processes, each with a device of its own.

    Args:
        accelerator: What knows the kind of device; the CPU's if None.
        parallel_devices: The devices of this machine that take part, one per process.
        cluster_environment: What knows the processes: who they are and where they meet.
        checkpoint_io: Another way to write files comes with a later version.
        precision_plugin: The number format; the plain one if None.
        process_group_backend: Backend of `torch.distributed`; that of the accelerator if None.
        timeout: How long processes wait for each other: seconds or a timedelta, or a pair (start-up, step).
        num_nodes: How many machines take part.
    """

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: Sequence[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: Any = None,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: Timeout = None,
        num_nodes: int = 1,
    ) -> None:
        super().__init__(accelerator, precision_plugin)
        if checkpoint_io is not None:
            raise MisconfigurationTypeError(
                "`checkpoint_io` comes with a later version; this one writes its own files."
            )
        self._devices = list(parallel_devices) if parallel_devices is not None else []
        self.cluster_environment = cluster_environment
        self.process_group_backend = process_group_backend
        self._given_timeout = timeout
        self.timeouts = timeouts_of(timeout)
        self._num_nodes = num_nodes
        self._side_group: Any = None

    def set_timeout(self, timeout: Timeout) -> None:
        """Take over a time-out that was given elsewhere.

        Raises:
            MisconfigurationException: This strategy was made with one.
        """
        if self._given_timeout is not None:
            raise MisconfigurationValueError("timeout set through both strategy class and timeout flag, choose one")
        self.timeouts = timeouts_of(timeout)

    # -- who and where -------------------------------------------------------------------------------------------------

    @property
    def global_rank(self) -> int:
        """Number of this process among all."""
        return self.cluster_environment.global_rank() if self.cluster_environment is not None else 0

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self.cluster_environment.local_rank() if self.cluster_environment is not None else 0

    @property
    def node_rank(self) -> int:
        """Number of this machine."""
        return self.cluster_environment.node_rank() if self.cluster_environment is not None else 0

    @property
    def num_processes(self) -> int:
        """Processes on this machine."""
        return max(len(self._devices), 1)

    @property
    def num_nodes(self) -> int:
        """How many machines there are."""
        return self._num_nodes

    @num_nodes.setter
    def num_nodes(self, number: int) -> None:
        self._num_nodes = number

    @property
    def world_size(self) -> int:
        """How many processes there are, or will be once they are started."""
        return dist.get_world_size() if dist.is_initialized() else self._num_nodes * self.num_processes

    @property
    def parallel_devices(self) -> list[torch.device]:
        """The devices of this machine that take part."""
        return self._devices

    @parallel_devices.setter
    def parallel_devices(self, devices: Sequence[torch.device]) -> None:
        self._devices = list(devices)

    @property
    def group(self) -> Any:
        """The group of all processes."""
        return dist.group.WORLD if dist.is_initialized() else None

    @property
    def side_group(self) -> Any:
        """A group of all processes that speaks from the CPU."""
        return self._side_group

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """How a sampler of the user's own would split the data."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    # -- the life of a run ---------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Learn, in a process that a launcher has just started, who one is."""
        from leyden.core.launch.environment import choose_environment

        self.cluster_environment, self.launcher = choose_environment(), None

    def setup_environment(self) -> None:
        """Take this process's device, and meet the other processes."""
        if self._devices:
            self.root_device = self._devices[self.local_rank]
        self.accelerator.setup_device(self.root_device)
        if dist.is_initialized():
            if self._side_group is None:
                self._side_group = dist.new_group(backend="gloo")
            return
        environment = self.cluster_environment
        assert environment is not None
        rank, world = environment.global_rank(), environment.world_size()
        url = "env://"
        if not environment.creates_processes_externally:
            url = f"tcp://{environment.main_address}:{environment.main_port}"
        store, _, _ = next(rendezvous(url, rank, world, timeout=self.timeouts[0]))
        dist.init_process_group(self._backend(), store=store, rank=rank, world_size=world, timeout=self.timeouts[0])
        self._side_group = dist.new_group(backend="gloo")
        atexit.register(_leave, store, rank, world)

    def _backend(self) -> str:
        own = self.process_group_backend or self.accelerator.backend
        # objects and flags travel from the CPU, whatever the devices speak
        return own if own == "gloo" or ":" in own else f"cpu:gloo,{self.root_device.type}:{own}"

    def first_step_done(self) -> None:
        """Shorten the time-out: what starts a run up may take long, a step may not."""
        self._wait_at_most(self.timeouts[1])

    def _wait_at_most(self, timeout: timedelta) -> None:
        if self.timeouts[0] == self.timeouts[1] or not dist.is_initialized():
            return
        if hasattr(dist, "set_timeout"):
            dist.set_timeout(timeout)
        else:  # torch before 2.15
            dist.distributed_c10d._set_pg_timeout(timeout, dist.group.WORLD)

    # -- among processes -----------------------------------------------------------------------------------------------

    def barrier(self, name: str | None = None) -> None:
        """Wait until every process is here."""
        if not dist.is_initialized():
            return
        if self.root_device.type == "cuda":
            dist.barrier(device_ids=[self.root_device.index or 0])
        else:
            dist.barrier()

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Return what process ``src`` has: any object that can be pickled."""
        if not dist.is_initialized():
            return obj
        box: list[Any] = [_packed(obj) if self.global_rank == src else None]
        dist.broadcast_object_list(box, src, device=torch.device("cpu"))
        return obj if self.global_rank == src else _unpacked(box[0])

    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        """Return a tensor reduced over all processes.

        Args:
            tensor: The tensor; anything else comes back as it is.
            group: Some of the processes; None means all.
            reduce_op: ``"mean"`` (also ``"avg"``), ``"sum"``, ``"min"`` or ``"max"``.

        Raises:
            MisconfigurationValueError: ``reduce_op`` is none of these.
        """
        if not isinstance(tensor, Tensor) or not dist.is_initialized():
            return tensor
        name = str(reduce_op).lower().removeprefix("reduceop.").removeprefix("redoptype.")
        operation = {"mean": "SUM", "avg": "SUM", "sum": "SUM", "min": "MIN", "max": "MAX", "none": "SUM"}.get(name)
        if operation is None:
            raise MisconfigurationValueError(f"`reduce_op` must be 'mean', 'sum', 'min' or 'max'; got {reduce_op!r}.")
        reduced = tensor.to(self.root_device, copy=True)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, operation), group)
        if name in ("mean", "avg"):
            world = dist.get_world_size(group)
            reduced = reduced / world
        return reduced

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Return the tensors of all processes, stacked along a new first dimension.

        Args:
            tensor: This process's, of the same shape on all.
            group: Some of the processes; None means all.
            sync_grads: Whether gradients flow back to the process that a part came from.
        """
        if not dist.is_initialized():
            return tensor
        with torch.set_grad_enabled(sync_grads and torch.is_grad_enabled()):
            gathered: Tensor = Gathered.apply(tensor.to(self.root_device).contiguous(), group)
        return gathered

    def gather_objects(self, obj: T) -> list[T]:
        """Return what every process has, in the order of their ranks."""
        if not dist.is_initialized():
            return [obj]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, _packed(obj), self._side_group)
        return [_unpacked(packed) for packed in found]

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return whether all processes, or any of them, decided for it."""
        flag = torch.tensor(int(decision), device=self.root_device)
        return bool(self.reduce(flag, reduce_op="min" if all else "max"))

    def teardown(self) -> None:
        """Let go of the module, and of the device's memory; the processes stay acquainted for the next run."""
        super().teardown()
        self._wait_at_most(self.timeouts[0])


def _packed(obj: Any) -> bytes:
    # torch's file format, because the pickle of a tensor does not hold every dtype
    stream = io.BytesIO()
    torch.save(obj, stream)
    return stream.getvalue()


def _unpacked(packed: bytes) -> Any:
    return torch.load(io.BytesIO(packed), weights_only=False)  # another process of this run made it


def _leave(store: Any, rank: int, world: int) -> None:
    """Leave the process groups at the end of the process, all at once.

    A process that tears its connections down while others close theirs may be aborted by gloo (seen in 4 of 10 ends
    with torch 2.15). One that ends by an error waits for nobody, and nobody waits for long: whoever works on closes
    nothing meanwhile.
    """
    if not dist.is_initialized():
        return
    failed = getattr(sys, "last_value", None)
    if failed is not None:
        # its frames hold groups and reducers, and the interpreter's own end would abort over them ("terminate called
        # without an active exception"): the exit code would be that of a signal
        traceback.clear_frames(failed.__traceback__)
        gc.collect()
    else:
        with suppress(RuntimeError):
            store.set(f"leyden/left/{rank}", "")
            until = monotonic() + 5.0
            while not store.check([f"leyden/left/{each}" for each in range(world)]) and monotonic() < until:
                sleep(0.01)
    dist.destroy_process_group()
