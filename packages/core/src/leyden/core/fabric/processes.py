# SPDX-License-Identifier: Apache-2.0
"""The processes of a loop of the user's own: starting them, who one is, and what goes from one to another."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import MisconfigurationRuntimeError, MisconfigurationTypeError
from leyden.core.launch.rank import busy, busy_until_exit
from leyden.core.strategies.parallel import ParallelStrategy
from leyden.core.strategies.strategy import Strategy
from leyden.core.transfer import apply_to_tensors, move_to_device

T = TypeVar("T")


class Processes:
    """What `Fabric` knows of processes.

    Args:
        strategy: How the run spreads over devices.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        # one process is complete as it is
        self._launched = not isinstance(strategy, ParallelStrategy)
        if self._launched:
            strategy.setup_environment()

    @property
    def strategy(self) -> Strategy:
        """How the run spreads over devices."""
        return self._strategy

    @property
    def accelerator(self) -> Accelerator:
        """The kind of device."""
        return self._strategy.accelerator

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._strategy.root_device

    @property
    def global_rank(self) -> int:
        """Number of this process among all."""
        return self._strategy.global_rank

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._strategy.local_rank

    @property
    def node_rank(self) -> int:
        """Number of this machine."""
        return self._strategy.node_rank

    @property
    def world_size(self) -> int:
        """How many processes there are, or will be once they are launched."""
        return self._strategy.world_size

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process."""
        return self._strategy.is_global_zero

    # -- starting ------------------------------------------------------------------------------------------------------

    def launch(self, function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Start the processes. With one device, or under torchrun, there is nothing to start.

        A script runs again in every process: what stands above this call runs again there, and what stands behind it
        runs there only. In a notebook, at a prompt or in a test, and with strategies that spawn or fork, give a
        function: it runs in every process.

        Args:
            function: What to run; it gets this object first. None to go on with the script.
            *args: Its further arguments.
            **kwargs: Its further arguments by name.

        Returns:
            What the function returned in the first process.

        Raises:
            MisconfigurationTypeError: The function can not be called or takes no argument, or it is missing where
                there is no script to run again.
            RankFailedError: A process ended before the function returned.
        """
        launcher = self._strategy.launcher
        if function is not None:
            _check_function(function)
        elif launcher is not None and launcher.is_interactive_compatible and not self._launched:
            raise MisconfigurationTypeError(
                f"To spawn processes with the `{type(self._strategy).__name__}` strategy, `.launch()` needs to be"
                " called with a function that contains the code to launch in processes."
            )
        if self._launched or launcher is None:
            return self._here(function, args, kwargs)
        return launcher.launch(_in_process, self, function, args, kwargs)

    def _here(self, function: Callable[..., Any] | None, args: Any, kwargs: Any) -> Any:
        """Meet the other processes, and run a function."""
        if function is None:
            if not self._launched:
                busy_until_exit()
                self._meet()
            return None
        with busy():
            self._meet()
            return function(self, *args, **kwargs)

    def _meet(self) -> None:
        if not self._launched:
            self._strategy.setup_environment()
            self._launched = True

    def _check_launched(self) -> None:
        if not self._launched:
            raise MisconfigurationRuntimeError(
                "To use Fabric with more than one device, you must call `.launch()` first:"
                f" `fabric = Fabric(devices={len(self._strategy.parallel_devices)}); fabric.launch()`."
            )

    # -- among processes -----------------------------------------------------------------------------------------------

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print, in the first process of each machine."""
        if self.local_rank == 0:
            builtins.print(*args, **kwargs)  # noqa: T201

    def barrier(self, name: str | None = None) -> None:
        """Wait until every process is here."""
        self._check_launched()
        self._strategy.barrier(name)

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Return what process ``src`` has: any object that can be pickled."""
        self._check_launched()
        return self._strategy.broadcast(obj, src)

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Return the tensors of all processes, stacked along a new first dimension; with one process as they are.

        Args:
            data: Tensors in any nesting, of the same shapes on all processes; numbers become tensors.
            group: Some of the processes; None means all.
            sync_grads: Whether gradients flow back to the process that a part came from.
        """
        self._check_launched()
        return self._each(data, lambda tensor: self._strategy.all_gather(tensor, group, sync_grads))

    def all_reduce(self, data: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        """Return tensors reduced over all processes.

        Args:
            data: Tensors in any nesting, of the same shapes on all processes; numbers become tensors.
            group: Some of the processes; None means all.
            reduce_op: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.

        Raises:
            MisconfigurationValueError: ``reduce_op`` is none of these.
        """
        self._check_launched()
        return self._each(data, lambda tensor: self._strategy.reduce(tensor, group, reduce_op))

    def _each(self, data: Any, function: Callable[[torch.Tensor], Any]) -> Any:
        return apply_to_tensors(move_to_device(_as_tensors(data), self.device), function)

    @contextmanager
    def rank_zero_first(self, local: bool = False) -> Generator[None, None, None]:
        """Let the first process run a ``with`` block before all others, as for a download.

        Args:
            local: Whether the first process of each machine does so, where machines have no disk in common.

        Examples:
            >>> import leyden.core as L
            >>> fabric = L.Fabric(accelerator="cpu", devices=1)
            >>> with fabric.rank_zero_first():
            ...     print("downloading")
            downloading
        """
        first = (self.local_rank if local else self.global_rank) == 0
        if not first:
            self.barrier("rank_zero_first")
        try:
            yield
        finally:
            if first:
                self.barrier("rank_zero_first")


def _in_process(fabric: Processes, function: Callable[..., Any] | None, args: Any, kwargs: Any) -> Any:
    """Run a function in a process that was started for it."""
    fabric.strategy.started()
    return move_to_device(fabric._here(function, args, kwargs), "cpu")


def _check_function(function: Any) -> None:
    if not callable(function):
        raise MisconfigurationTypeError(
            f"`Fabric.launch(...)` needs to be a callable, but got {function}. HINT: do `.launch(your_fn)` instead of"
            " `.launch(your_fn())`"
        )
    if not inspect.signature(function).parameters:
        raise MisconfigurationTypeError(
            f"`Fabric.launch(function={function})` needs to take at least one argument. The launcher will pass in the"
            " `Fabric` object so you can use it inside the function."
        )


def _as_tensors(data: Any) -> Any:
    if isinstance(data, (bool, int, float)):
        return torch.tensor(data)
    if isinstance(data, dict):
        return {key: _as_tensors(value) for key, value in data.items()}
    if type(data) in (list, tuple):
        return type(data)(_as_tensors(value) for value in data)
    return data
