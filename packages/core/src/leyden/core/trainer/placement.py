# SPDX-License-Identifier: Apache-2.0
"""Where a run takes place: strategy, device, number format, ranks."""

from __future__ import annotations

from typing import Any

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.flags import Flags
from leyden.core.precision.precision import Precision
from leyden.core.strategies.strategy import Strategy


class Placement:
    """What is read off a trainer about devices and processes."""

    flags: Flags

    @property
    def strategy(self) -> Strategy:
        """How the run spreads over devices."""
        return self.flags.engine

    @property
    def accelerator(self) -> Accelerator:
        """The kind of device."""
        return self.strategy.accelerator

    @property
    def precision_plugin(self) -> Precision:
        """The number format."""
        return self.strategy.precision_plugin

    @property
    def precision(self) -> str:
        """The name of the number format."""
        return self.precision_plugin.precision

    @property
    def scaler(self) -> Any:
        """What scales the loss of a 16 bit format; None with the others."""
        return getattr(self.precision_plugin, "scaler", None)

    @property
    def num_devices(self) -> int:
        """Devices on this machine."""
        return len(self.device_ids)

    @property
    def device_ids(self) -> list[int]:
        """Numbers of the devices on this machine."""
        devices = self.strategy.parallel_devices
        # processes on the CPU share it, and are numbered
        return [i if device.index is None else device.index for i, device in enumerate(devices)]

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.strategy.num_nodes

    @property
    def node_rank(self) -> int:
        """Number of this machine."""
        return self.strategy.node_rank

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any] | None:
        """How processes split the data; None with one."""
        return self.strategy.distributed_sampler_kwargs

    @property
    def global_rank(self) -> int:
        """Rank of this process."""
        return self.strategy.global_rank

    @property
    def local_rank(self) -> int:
        """Rank of this process on its machine."""
        return self.strategy.local_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.strategy.world_size

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process."""
        return self.strategy.is_global_zero
