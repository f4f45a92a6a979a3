# SPDX-License-Identifier: Apache-2.0
"""TPUs, and whatever else torch_xla drives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.devices import as_numbers
from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, MissingExtraError


class XLAAccelerator(Accelerator):
    """Devices of torch_xla: TPUs, or with ``PJRT_DEVICE=CPU`` in the environment the CPU by the same way.

    Raises:
        MissingExtraError: torch_xla is not installed.

    Examples:
        >>> from leyden.core.accelerators import XLAAccelerator
        >>> XLAAccelerator.name()
        'tpu'
    """

    backend = "xla"

    def __init__(self) -> None:
        if not _installed():
            raise MissingExtraError(
                "`XLAAccelerator` can not run on your system since the accelerator is not available: it needs"
                " `torch_xla`, which is not installed: pip install 'leyden-core[xla]'",
                name="torch_xla",
            )

    def setup_device(self, device: torch.device) -> None:
        """Check that a device is one of this kind; torch_xla binds each process to its own.

        Raises:
            MisconfigurationException: It is another.
        """
        if device.type != "xla":
            raise MisconfigurationException(f"Device should be XLA, got {device} instead.")
        # torch knows the device once this is imported
        import_module("torch_xla")

    def teardown(self) -> None:
        """Free what the devices hold: nothing; their memory goes with the process."""

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return the memory of a device that is free, and that was used at most, in MB."""
        memory = import_module("torch_xla.core.xla_model").get_memory_info(device)
        free = memory["bytes_limit"] - memory["bytes_used"]
        return {
            "avg. free memory (MB)": free / 2**20,
            "avg. peak memory (MB)": memory["peak_bytes_used"] / 2**20,
        }

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> int | list[int]:
        """Return what the flag ``devices`` asks for: how many devices, or a list with the number of one.

        Raises:
            MisconfigurationTypeError: It is neither a number, nor text, nor a list of numbers.
            MisconfigurationValueError: The runtime can not start as many processes.
        """
        count = XLAAccelerator.auto_device_count()
        given = as_numbers(devices)
        asked: int | list[int] = count if given == "auto" else given
        if isinstance(asked, int) and asked > 0 and asked in (1, count):
            return asked
        if isinstance(asked, list) and len(asked) == 1 and 0 <= asked[0] < count:
            return asked
        raise MisconfigurationValueError(
            f"`devices` can only be 'auto', 1, {count} or [<0-{count - 1}>] for TPUs. Got {devices!r}"
        )

    @staticmethod
    def get_parallel_devices(devices: int | str | Sequence[int]) -> list[torch.device]:
        """Return a device for each process that the flag ``devices`` asks for."""
        asked = XLAAccelerator.parse_devices(devices)
        return [torch.device("xla", index) for index in (range(asked) if isinstance(asked, int) else asked)]

    @staticmethod
    def auto_device_count() -> int:
        """Return how many devices ``devices="auto"`` means: all of this machine; 0 without torch_xla."""
        if not _installed():
            return 0
        if os.environ.get("PJRT_DEVICE", "TPU").upper() == "CPU":
            return int(os.environ.get("CPU_NUM_DEVICES", "1"))
        return tpu_count()

    @staticmethod
    def is_available() -> bool:
        """Tell whether torch_xla is installed and has a device."""
        return XLAAccelerator.auto_device_count() > 0

    @staticmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
        return "tpu"


def _installed() -> bool:
    try:
        return find_spec("torch_xla") is not None
    except ValueError:
        return False


# torch_xla takes what tells the number out of the environment when it starts processes
@cache
def tpu_count() -> int:
    """Return how many TPU devices this machine has; 0 if torch_xla is not installed, or finds none."""
    # importing torch_xla takes seconds and sets variables of the environment, which only machines with a TPU are due
    if not _installed() or not _has_google_hardware():
        return 0
    try:
        return int(import_module("torch_xla._internal.tpu").num_available_devices())
    # what torch_xla raises where it is installed but not set up
    except (ValueError, AssertionError, OSError):
        return 0


def _has_google_hardware() -> bool:
    return any(vendor.read_text().strip() == "0x1ae0" for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"))
