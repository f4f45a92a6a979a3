# SPDX-License-Identifier: Apache-2.0
"""The strategy of one process on one device."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from leyden.core.accelerators.cpu import CPUAccelerator
from leyden.core.errors import NotYetSupported
from leyden.core.plugins.precision import Precision

T = TypeVar("T")


class SingleDeviceStrategy:
    """Everything in one process on one device: there is nobody to send to, to wait for or to gather from.

    Args:
        device: The device; this version has the CPU.
        accelerator: What knows the device; the CPU's if None.
        checkpoint_io: Another way to write files comes with a later version.
        precision_plugin: The number format; the plain one if None.

    Attributes:
        strategy_name: The name that the flag ``strategy`` takes.
        root_device: The device.

    Raises:
        NotYetSupported: ``device`` is not the CPU, or ``checkpoint_io`` is given.

    Examples:
        >>> from leyden.core.strategies import SingleDeviceStrategy
        >>> strategy = SingleDeviceStrategy()
        >>> strategy.root_device, strategy.world_size, strategy.broadcast("sent")
        (device(type='cpu'), 1, 'sent')
    """

    strategy_name = "single_device"
    global_rank = local_rank = node_rank = 0
    world_size = num_nodes = 1
    is_global_zero = True

    def __init__(
        self,
        device: str | torch.device = "cpu",
        accelerator: CPUAccelerator | None = None,
        checkpoint_io: Any = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        self.root_device = torch.device(device)
        if self.root_device.type != "cpu":
            raise NotYetSupported(f"`device={str(device)!r}` comes with a later version; this one has 'cpu'.")
        if checkpoint_io is not None:
            raise NotYetSupported("`checkpoint_io` comes with a later version; this one writes its own files.")
        # what was given, and not filled in, may not contradict the Trainer's flags
        self._accelerator, self._precision_plugin = accelerator, precision_plugin
        self.accelerator = CPUAccelerator() if accelerator is None else accelerator
        self.precision_plugin = Precision() if precision_plugin is None else precision_plugin

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all processes: for none."""

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Return what process ``src``, this one, has."""
        return obj

    def reduce(self, tensor: T, *args: Any, **kwargs: Any) -> T:
        """Return the reduction over all processes: the value of this one."""
        return tensor

    def all_gather(self, tensor: torch.Tensor, group: Any = None, sync_grads: bool = False) -> torch.Tensor:
        """Return the values of all processes: the value of this one."""
        return tensor

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make tensors on the device of the run; ``empty_init`` leaves parameters as the memory was."""
        with self.root_device:
            if empty_init:
                with _NotFilled():
                    yield
            else:
                yield


class _NotFilled(TorchFunctionMode):
    """Makes the functions of `torch.nn.init` return their tensor as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
