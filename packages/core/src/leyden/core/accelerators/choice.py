# SPDX-License-Identifier: Apache-2.0
"""Which devices the flags ``accelerator`` and ``devices`` ask for."""

from __future__ import annotations

import sys
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.cpu import CPUAccelerator
from leyden.core.accelerators.cuda import CUDAAccelerator
from leyden.core.accelerators.mps import MPSAccelerator
from leyden.core.accelerators.registry import OWN, AcceleratorRegistry
from leyden.core.accelerators.xla import tpu_count
from leyden.core.accelerators.xpu import XPUAccelerator
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)
from leyden.core.ranks import rank_zero_info


def choose_accelerator(accelerator: Any, devices: Any) -> tuple[Accelerator, list[torch.device]]:
    """Return the kind of device that the flags ask for, and a device for each process of this machine.

    Args:
        accelerator: A name, an `Accelerator`, or a class of them.
        devices: A number, a list of numbers, either of them as text, or ``"auto"``.

    Returns:
        The kind, and the devices: at least one.

    Raises:
        MisconfigurationException: There is no such kind, this machine does not have it, or not as many devices.
        MissingExtraError: The kind needs a package that is not installed.

    Examples:
        >>> from leyden.core.accelerators.choice import choose_accelerator
        >>> accelerator, devices = choose_accelerator("cpu", 2)
        >>> accelerator.name(), devices
        ('cpu', [device(type='cpu'), device(type='cpu')])
    """
    # comparing an array gives an array, so only what the flag may be is compared
    plain = isinstance(devices, (int, str, list, tuple))
    if plain and devices in (0, "0", [], (), ""):
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})` value is not a valid input using {_label(accelerator)} accelerator:"
            " `devices` must ask for at least one device."
        )
    kind = _kind(accelerator)
    _check_available(kind)
    if accelerator == "auto" and isinstance(kind, CPUAccelerator):
        devices = _without_gpus(devices)
    asked = kind.parse_devices(_auto_count(kind) if plain and devices == "auto" else devices)
    found = kind.get_parallel_devices(asked) if asked is not None else []
    if not found:
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})` value is not a valid input using {_label(accelerator)} accelerator:"
            f" {kind.name()!r} gives no device for it."
        )
    return kind, found


def _kind(given: Any) -> Accelerator:
    if isinstance(given, Accelerator):
        return given
    if isinstance(given, type) and issubclass(given, Accelerator):
        return given()
    name = given
    if given == "auto":
        name = _best()
    elif given == "gpu":
        name = _gpu()
    elif given == "xla":
        name = "tpu"
    if not isinstance(name, str) or name not in AcceleratorRegistry:
        others = sorted(AcceleratorRegistry.available_accelerators() - set(OWN))
        names = ", ".join(["auto", "cpu", "gpu", "cuda", "mps", "tpu", "xla", "xpu", *others])
        raise MisconfigurationValueError(
            f"You selected an invalid accelerator name: `accelerator={given!r}`. Available names are: {names}; an"
            " `Accelerator` or a class of them may be passed as well."
        )
    kind: Accelerator = AcceleratorRegistry.get(name)
    return kind


def _best() -> str:
    # torch_xla on the CPU is a way to try programs, which nobody means by "auto"
    if tpu_count() > 0:
        return "tpu"
    for kind in (CUDAAccelerator, MPSAccelerator, XPUAccelerator):
        if kind.is_available():
            return kind.name()
    return "cpu"


def _gpu() -> str:
    for kind in (MPSAccelerator, CUDAAccelerator):
        if kind.is_available():
            return kind.name()
    raise MisconfigurationException(f"No supported gpu backend found!{_what_there_is()}")


def _check_available(kind: Accelerator) -> None:
    if not kind.is_available():
        raise MisconfigurationException(
            f"`{type(kind).__qualname__}` can not run on your system since the accelerator is not available."
            f"{_what_there_is()}"
        )


def _what_there_is() -> str:
    names = [name for name in sorted(AcceleratorRegistry) if _can_run(name)]
    rule = "The following accelerator(s) is available and can be passed into `accelerator` argument of `Trainer`"
    return f" {rule}: {names}."


def _can_run(name: str) -> bool:
    try:
        return bool(AcceleratorRegistry[name]["accelerator"].is_available())
    except Exception:  # noqa: BLE001 - a distribution's own code, which must not hide what the user is being told
        return False


def _auto_count(kind: Accelerator) -> int:
    count = kind.auto_device_count()
    # a program can not be started again from a notebook, which is what one process per GPU takes
    if count > 1 and isinstance(kind, (CUDAAccelerator, XPUAccelerator)) and hasattr(sys, "ps1"):
        rank_zero_info(
            f"Trainer will use only 1 of {count} GPUs because it is running inside an interactive / notebook"
            f" environment. `Trainer(devices={count})` asks for all of them."
        )
        return 1
    return count


def _without_gpus(devices: Any) -> Any:
    """Return the flag ``devices`` as it reads for the CPU, which stands in where a machine has no GPU."""
    if isinstance(devices, (list, tuple)) and list(devices) == [0]:
        return 1
    if _names_gpus(devices):
        raise MisconfigurationTypeError(
            f"`devices={devices!r}` asks for GPUs, and this machine has none. With the CPU instead, `devices` should be"
            " an int > 0: the number of processes."
        )
    return devices


def _names_gpus(devices: Any) -> bool:
    """Tell whether devices are given as only GPUs can be: all of them, or by their numbers."""
    if isinstance(devices, str):
        parts = [part.strip() for part in devices.split(",")]
        return parts == ["-1"] or (len(parts) > 1 and all(part.isdigit() for part in parts if part))
    if isinstance(devices, (list, tuple)):
        return all(isinstance(index, int) for index in devices)
    return type(devices) is int and devices == -1


def _label(accelerator: Any) -> str:
    if isinstance(accelerator, str):
        return accelerator
    return (accelerator if isinstance(accelerator, type) else type(accelerator)).__qualname__
