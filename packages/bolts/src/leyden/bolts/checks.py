# SPDX-License-Identifier: Apache-2.0
"""How a config checks its fields."""

from __future__ import annotations

import math
from typing import Any

from leyden.bolts.errors import BoltValueError


def check_integer(name: str, value: Any, low: int) -> None:
    """Raise unless ``value`` is an integer of at least ``low``.

    Raises:
        BoltValueError: It is not.

    Examples:
        >>> check_integer("width", 0, 1)
        Traceback (most recent call last):
        leyden.bolts.errors.BoltValueError: width must be an integer of at least 1; got 0
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise BoltValueError(f"{name} must be an integer of at least {low}; got {value!r}")


def check_number(name: str, value: Any, low: float, below: float = math.inf) -> None:
    """Raise unless ``value`` is a number of at least ``low`` and less than ``below``.

    Raises:
        BoltValueError: It is not.

    Examples:
        >>> check_number("dropout", 1.0, 0.0, 1.0)
        Traceback (most recent call last):
        leyden.bolts.errors.BoltValueError: dropout must be a number in [0.0, 1.0); got 1.0
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value < below:
        raise BoltValueError(f"{name} must be a number in [{low}, {below}); got {value!r}")
