# SPDX-License-Identifier: Apache-2.0
"""The strategy of one process on one device."""

from __future__ import annotations

from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import NotYetSupported
from leyden.core.precision.precision import Precision
from leyden.core.strategies.strategy import Strategy


class SingleDeviceStrategy(Strategy):
    """Everything in one process on one device: there is nobody to send to, to wait for or to gather from.

    Args:
        device: The device.
        accelerator: What knows the device; the CPU's if None.
        checkpoint_io: Another way to write files comes with a later version.
        precision_plugin: The number format; the plain one if None.

    Attributes:
        strategy_name: The name that the flag ``strategy`` takes.
        root_device: The device.

    Raises:
        NotYetSupported: ``checkpoint_io`` is given.

    Examples:
        >>> from leyden.core.strategies import SingleDeviceStrategy
        >>> strategy = SingleDeviceStrategy()
        >>> strategy.root_device, strategy.world_size, strategy.broadcast("sent")
        (device(type='cpu'), 1, 'sent')
    """

    strategy_name = "single_device"

    def __init__(
        self,
        device: str | torch.device = "cpu",
        accelerator: Accelerator | None = None,
        checkpoint_io: Any = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        super().__init__(accelerator, precision_plugin)
        self.root_device = torch.device(device)
        if checkpoint_io is not None:
            raise NotYetSupported("`checkpoint_io` comes with a later version; this one writes its own files.")
