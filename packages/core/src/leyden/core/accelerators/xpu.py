# SPDX-License-Identifier: Apache-2.0
"""GPUs of Intel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.devices import auto_count, parse_indices
from leyden.core.errors import MisconfigurationException


class XPUAccelerator(Accelerator):
    """GPUs that torch reaches through XPU.

    Examples:
        >>> from leyden.core.accelerators import XPUAccelerator
        >>> XPUAccelerator.get_parallel_devices([1])
        [device(type='xpu', index=1)]
    """

    backend = "xccl"

    def setup_device(self, device: torch.device) -> None:
        """Make a GPU the current one of this process.

        Raises:
            MisconfigurationException: The device is of another kind.
        """
        if device.type != "xpu":
            raise MisconfigurationException(f"Device should be XPU, got {device} instead.")
        # "xpu" without a number means the current one already, and torch refuses to set it
        if device.index is not None:
            torch.xpu.set_device(device)

    def teardown(self) -> None:
        """Give memory that no tensor uses back to other programs."""
        torch.xpu.empty_cache()

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return the figures of torch's allocator, by the names of `torch.xpu.memory_stats`."""
        figures: dict[str, Any] = torch.xpu.memory_stats(device)
        return figures

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> list[int] | None:
        """Return the numbers of the GPUs that the flag ``devices`` asks for, as `parse_indices` does."""
        return parse_indices(devices, torch.xpu.device_count())

    @staticmethod
    def get_parallel_devices(devices: Sequence[int]) -> list[torch.device]:
        """Return the GPU of each process, from their numbers."""
        return [torch.device("xpu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """Return how many GPUs ``devices="auto"`` means: all visible ones, or one per process of another launcher."""
        return auto_count(torch.xpu.device_count())

    @staticmethod
    def is_available() -> bool:
        """Tell whether a GPU is visible."""
        return torch.xpu.device_count() > 0

    @staticmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
        return "xpu"
