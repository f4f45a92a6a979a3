# SPDX-License-Identifier: Apache-2.0
"""The GPU of a Mac."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.devices import parse_indices
from leyden.core.accelerators.load import machine_load
from leyden.core.errors import MisconfigurationException


class MPSAccelerator(Accelerator):
    """The GPU of a Mac with Apple silicon. There is one, and one process uses it.

    Examples:
        >>> from leyden.core.accelerators import MPSAccelerator
        >>> MPSAccelerator.name(), MPSAccelerator.auto_device_count()
        ('mps', 1)
    """

    def setup_device(self, device: torch.device) -> None:
        """Check that a device is one of this kind.

        Raises:
            MisconfigurationException: It is another.
        """
        if device.type != "mps":
            raise MisconfigurationException(f"Device should be MPS, got {device} instead.")

    def teardown(self) -> None:
        """Give memory that no tensor uses back to other programs."""
        if MPSAccelerator.is_available():
            torch.mps.empty_cache()

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return how busy the machine is, whose memory the GPU shares, in percent.

        Raises:
            MissingExtraError: `psutil` is not installed.
        """
        return machine_load("MPS", "M1")

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> list[int] | None:
        """Return the numbers of the GPUs that the flag ``devices`` asks for, as `parse_indices` does."""
        return parse_indices(devices, int(MPSAccelerator.is_available()))

    @staticmethod
    def get_parallel_devices(devices: int | str | Sequence[int]) -> list[torch.device]:
        """Return the GPU, from what the flag ``devices`` asks for."""
        return [torch.device("mps", index) for index in MPSAccelerator.parse_devices(devices) or []]

    @staticmethod
    def auto_device_count() -> int:
        """Return how many GPUs ``devices="auto"`` means."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Tell whether this is such a Mac; ``DISABLE_MPS=1`` in the environment says that it is none."""
        disabled = os.environ.get("DISABLE_MPS", "0") == "1"
        return not disabled and torch.backends.mps.is_available() and platform.processor() in ("arm", "arm64")

    @staticmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
        return "mps"
