# SPDX-License-Identifier: Apache-2.0
"""What the engine needs to know of a kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch


class Accelerator(ABC):
    """A kind of device. Whoever brings a new one derives from this class and registers it.

    Attributes:
        backend: The communication backend of `torch.distributed` for this kind of device.

    Examples:
        >>> from leyden.core.accelerators import CPUAccelerator
        >>> CPUAccelerator.is_available(), CPUAccelerator.backend
        (True, 'gloo')
    """

    backend = "gloo"

    @abstractmethod
    def setup_device(self, device: torch.device) -> None:
        """Make a device the current one of this process."""

    @abstractmethod
    def teardown(self) -> None:
        """Free what the devices hold."""

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return figures about a device: memory, load."""
        return {}

    @staticmethod
    @abstractmethod
    def parse_devices(devices: Any) -> Any:
        """Return what the flag ``devices`` asks for: a number, or the numbers of devices."""

    @staticmethod
    @abstractmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return a device for each process on this machine, from what `parse_devices` gave."""

    @staticmethod
    @abstractmethod
    def auto_device_count() -> int:
        """Return how many devices ``devices="auto"`` means."""

    @staticmethod
    @abstractmethod
    def is_available() -> bool:
        """Tell whether this machine has such a device."""

    @staticmethod
    @abstractmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
