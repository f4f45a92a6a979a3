# SPDX-License-Identifier: Apache-2.0
"""GPUs of NVIDIA, and those of AMD that torch shows under the same name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.devices import auto_count, parse_indices
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationValueError,
)


class CUDAAccelerator(Accelerator):
    """GPUs that torch reaches through CUDA or ROCm.

    Which GPUs of the machine are visible, and their order, is up to ``CUDA_VISIBLE_DEVICES``; numbers count the visible
    ones.

    Examples:
        >>> from leyden.core.accelerators import CUDAAccelerator
        >>> CUDAAccelerator.get_parallel_devices([0, 2])
        [device(type='cuda', index=0), device(type='cuda', index=2)]
    """

    backend = "nccl"

    def setup_device(self, device: torch.device) -> None:
        """Make a GPU the current one of this process.

        Raises:
            MisconfigurationException: The device is of another kind.
        """
        if device.type != "cuda":
            raise MisconfigurationException(f"Device should be GPU, got {device} instead.")
        # "cuda" without a number means the current one already, and torch refuses to set it
        if device.index is not None:
            torch.cuda.set_device(device)

    def teardown(self) -> None:
        """Give memory that no tensor uses back to other programs."""
        torch.cuda.empty_cache()

    def get_device_stats(self, device: torch.device | str) -> dict[str, Any]:
        """Return the figures of torch's allocator, by the names of `torch.cuda.memory_stats`."""
        figures: dict[str, Any] = torch.cuda.memory_stats(device)
        return figures

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> list[int] | None:
        """Return the numbers of the GPUs that the flag ``devices`` asks for, as `parse_indices` does."""
        return parse_indices(devices, torch.cuda.device_count())

    @staticmethod
    def get_parallel_devices(devices: Sequence[int]) -> list[torch.device]:
        """Return the GPU of each process, from their numbers."""
        return [torch.device("cuda", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """Return how many GPUs ``devices="auto"`` means: all visible ones, or one per process of another launcher."""
        return auto_count(torch.cuda.device_count())

    @staticmethod
    def is_available() -> bool:
        """Tell whether a GPU is visible."""
        return torch.cuda.device_count() > 0

    @staticmethod
    def name() -> str:
        """Return the name that the flag ``accelerator`` takes."""
        return "cuda"


def find_usable_cuda_devices(num_devices: int = -1) -> list[int]:
    """Return the numbers of GPUs that take a tensor: in exclusive mode, those that no other process has.

    Each GPU that is tried gets a CUDA context in this process, so it can not be forked afterwards. Two processes that
    ask at the same time may get the same answer.

    Args:
        num_devices: How many; -1 for all.

    Raises:
        MisconfigurationValueError: There are not as many.
        MisconfigurationRuntimeError: There are, but others use them.

    Examples:
        >>> from leyden.core.accelerators import find_usable_cuda_devices
        >>> find_usable_cuda_devices(0)
        []
    """
    if num_devices == 0:
        return []
    visible = torch.cuda.device_count()
    if visible == 0:
        raise MisconfigurationValueError(
            f"You requested to find {num_devices} devices but there are no visible CUDA devices on this machine."
        )
    if num_devices < -1 or num_devices > visible:
        raise MisconfigurationValueError(
            f"You requested to find {num_devices} devices but this machine only has {visible} GPUs; -1 asks for all"
            " that can be used."
        )
    usable: list[int] = []
    occupied: list[int] = []
    for index in range(visible):
        if len(usable) == num_devices:
            break
        (usable if _takes_a_tensor(index) else occupied).append(index)
    if num_devices != -1 and len(usable) < num_devices:
        raise MisconfigurationRuntimeError(
            f"You requested to find {num_devices} devices but only {len(usable)} are currently available. Other"
            f" processes occupy the devices {occupied}: wait for them, or ask for fewer."
        )
    return usable


def _takes_a_tensor(index: int) -> bool:
    try:
        torch.tensor(0, device=torch.device("cuda", index))
    except RuntimeError:
        return False
    return True
