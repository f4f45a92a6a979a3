# SPDX-License-Identifier: Apache-2.0
"""What the flag ``devices`` means for kinds of devices that have numbers, such as GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)


def processes_here() -> int | None:
    """Return how many processes another launcher, such as `torchrun`, has started on this machine; None without one.

    Examples:
        >>> from leyden.core.accelerators.devices import processes_here
        >>> processes_here() is None
        True
    """
    text = os.environ.get("LOCAL_WORLD_SIZE", "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else None


def auto_count(visible: int) -> int:
    """Return how many of the numbered devices ``devices="auto"`` means.

    Args:
        visible: How many this process sees.

    Returns:
        All of them, or as many as there are processes of another launcher.
    """
    launched = processes_here()
    if launched is None or visible == 0:
        return visible
    # a launcher may show each process a device of its own, which is number 0 for all of them
    return launched if visible == 1 else min(visible, launched)


def parse_indices(devices: int | str | Sequence[int], visible: int) -> list[int] | None:
    """Return the numbers of the devices that the flag ``devices`` asks for.

    Args:
        devices: How many, also as text; -1 for all; a list of numbers, also as text with commas; or ``"auto"``.
        visible: How many this process sees.

    Returns:
        The numbers, one per process; None if no device is asked for: 0 or an empty list.

    Raises:
        MisconfigurationTypeError: It is none of these.
        MisconfigurationValueError: It is a text without a number, or a number below -1.
        MisconfigurationException: A device is asked for twice, or is not there.

    Examples:
        >>> from leyden.core.accelerators.devices import parse_indices
        >>> parse_indices(2, visible=4), parse_indices("2,", visible=4), parse_indices(-1, visible=4)
        ([0, 1], [2], [0, 1, 2, 3])
    """
    given = as_numbers(devices)
    available = list(range(visible))
    if given == "auto":
        given = auto_count(visible)
    if given in (0, []):
        return None
    if not available and given == -1:
        raise MisconfigurationException("GPUs requested but none are available.")
    if isinstance(given, int) and given < -1:
        raise MisconfigurationValueError(f"`devices` must be a number of devices, or -1 for all; got {devices!r}.")
    wanted = given if isinstance(given, list) else available if given == -1 else list(range(given))
    launched = processes_here()
    if visible == 1 and launched is not None and (given == -1 or len(wanted) == launched):
        return available * launched
    if len(wanted) != len(set(wanted)):
        raise MisconfigurationException(f"Device ID's (GPU) must be unique. `devices={devices!r}` has one twice.")
    if any(index not in available for index in wanted):
        raise MisconfigurationException(f"You requested gpu: {wanted}\n But your machine only has: {available}")
    return wanted


def as_numbers(devices: Any) -> Any:
    """Return the flag ``devices`` as a number, a list of numbers or ``"auto"``, whichever way it is written.

    Raises:
        MisconfigurationTypeError: It is neither a number, nor text, nor a list of numbers.
        MisconfigurationValueError: It is a text without a number.
    """
    if isinstance(devices, str):
        return _read(devices)
    if type(devices) is int:
        return devices
    rule = "Device IDs (GPU/TPU) must be an int, a string, a sequence of ints, but you passed"
    if not isinstance(devices, Sequence):
        raise MisconfigurationTypeError(f"{rule} {devices!r}.")
    for index in devices:
        if type(index) is not int:
            raise MisconfigurationTypeError(f"{rule} a sequence of {type(index).__name__}: {devices!r}.")
    return list(devices)


def _read(text: str) -> int | str | list[int]:
    plain = text.strip()
    if plain == "auto":
        return plain
    if plain == "[]":
        return []
    try:
        if "," in plain:
            return [int(part) for part in plain.split(",") if part.strip()]
        return int(plain)
    except ValueError as wrong:
        raise MisconfigurationValueError(
            f"`devices={text!r}` has no number of devices: write '2' for two of them, '0,2' for the first and the third"
            " one, '-1' for all, or 'auto'."
        ) from wrong
