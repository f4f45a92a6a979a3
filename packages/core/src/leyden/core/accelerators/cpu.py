# SPDX-License-Identifier: Apache-2.0
"""The CPU as a device to train on."""

from __future__ import annotations

from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.devices import processes_here
from leyden.core.accelerators.load import machine_load
from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError


class CPUAccelerator(Accelerator):
    """The CPU, which is always there.

    Examples:
        >>> from leyden.core.accelerators import CPUAccelerator
        >>> CPUAccelerator.get_parallel_devices("1")
        [device(type='cpu')]
    """

    def setup_device(self, device: torch.device) -> None:
        """Check that a device is one of this kind.

        Raises:
            MisconfigurationException: It is another.
        """
        if device.type != "cpu":
            raise MisconfigurationException(f"Device should be CPU, got {device} instead.")

    def teardown(self) -> None:
        """Free what the device holds: nothing."""

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return how busy the machine is: ``cpu_vm_percent``, ``cpu_percent`` and ``cpu_swap_percent``.

        Raises:
            MissingExtraError: `psutil` is not installed.
        """
        return machine_load("CPU", "cpu")

    @staticmethod
    def parse_devices(devices: int | str) -> int:
        """Return how many processes the flag ``devices`` asks for.

        Args:
            devices: A number, also as text.

        Raises:
            MisconfigurationTypeError: It is no number above 0.
        """
        count: Any = int(devices) if isinstance(devices, str) and devices.strip().isdigit() else devices
        if isinstance(count, bool) or not isinstance(count, int) or count <= 0:
            raise MisconfigurationTypeError(
                f"`devices` selected with `CPUAccelerator` should be an int > 0; got {devices!r}."
            )
        return count

    @staticmethod
    def get_parallel_devices(devices: int | str) -> list[torch.device]:
        """Return a device for each process that the flag ``devices`` asks for."""
        return [torch.device("cpu")] * CPUAccelerator.parse_devices(devices)

    @staticmethod
    def auto_device_count() -> int:
        """Return how many processes ``devices="auto"`` means: one, or those that another launcher has started."""
        return processes_here() or 1

    @staticmethod
    def is_available() -> bool:
        """Tell whether this machine has such a device."""
        return True

    @staticmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
        return "cpu"
