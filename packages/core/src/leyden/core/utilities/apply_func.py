# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the move of a batch to a device."""

from __future__ import annotations

from leyden.core.transfer import move_to_device as move_data_to_device

__all__ = ["move_data_to_device"]
