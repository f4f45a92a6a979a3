# SPDX-License-Identifier: Apache-2.0
"""How busy the machine is."""

from __future__ import annotations

from importlib import import_module

from leyden.core.errors import MissingExtraError


def machine_load(kind: str, prefix: str) -> dict[str, float]:
    """Return how much of memory, processors and swap the machine uses, in percent.

    Args:
        kind: Name of the kind of device that is asked about, for the error.
        prefix: What the names of the figures start with.

    Raises:
        MissingExtraError: `psutil` is not installed.
    """
    try:
        psutil = import_module("psutil")
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"Fetching {kind} device stats requires `psutil` to be installed: pip install psutil", name="psutil"
        ) from missing
    return {
        f"{prefix}_vm_percent": psutil.virtual_memory().percent,
        f"{prefix}_percent": psutil.cpu_percent(),
        f"{prefix}_swap_percent": psutil.swap_memory().percent,
    }
