# SPDX-License-Identifier: Apache-2.0
"""Duration: how long or how often, with its unit: epochs, batches, optimiser steps or time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError

Unit: TypeAlias = Literal["ep", "ba", "st", "s"]
UNITS: dict[str, str] = {"ep": "epochs", "ba": "batches", "st": "optimiser steps", "s": "seconds"}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ep|ba|st|s|min|h|d)")
_FORMS = "a number with one of ep, ba, st, s, min, h, d, such as '10ep' or '12h'"


@dataclass(frozen=True, slots=True)
class Duration:
    """A number with its unit.

    Attributes:
        value: The number. Batches and steps are whole.
        unit: ``"ep"`` for epochs, ``"ba"`` for batches, ``"st"`` for optimiser steps, ``"s"`` for seconds.

    Examples:
        >>> from leyden.core.duration import Duration
        >>> Duration.parse("0.25ep")
        Duration(value=0.25, unit='ep')
        >>> Duration.parse("12h") == Duration.parse("00:12:00:00") == Duration.parse({"hours": 12})
        True
    """

    value: float | int
    unit: Unit

    @classmethod
    def parse(cls, given: str | timedelta | Mapping[str, float], name: str = "duration") -> Duration:
        """Read a duration.

        Args:
            given: A number with ``ep``, ``ba``, ``st``, ``s``, ``min``, ``h`` or ``d``; ``"DD:HH:MM:SS"``; a timedelta,
                or a mapping of its arguments.
            name: What is being set, for the message of an error.

        Returns:
            The duration; every time is in seconds.

        Raises:
            MisconfigurationValueError: A text has no such form, or counts parts of batches or steps.
            MisconfigurationTypeError: It is nothing of the kind, or a mapping with other names.
        """
        if isinstance(given, timedelta):
            return cls(given.total_seconds(), "s")
        if isinstance(given, Mapping):
            return cls(_span(given, name).total_seconds(), "s")
        if not isinstance(given, str):
            raise MisconfigurationTypeError(f"`{name}` must be {_FORMS}, a timedelta or a dict; got {given!r}.")
        if ":" in given:
            return cls(_clock(given, name), "s")
        found = _NUMBER.fullmatch(given.strip())
        if found is None:
            raise MisconfigurationValueError(
                f"Invalid time format for `{name}`: {given!r} is not a valid duration. Expected a string in the format"
                f" DD:HH:MM:SS, or {_FORMS}."
            )
        number, unit = float(found[1]), found[2]
        if unit in _SECONDS:
            return cls(number * _SECONDS[unit], "s")
        if unit in ("ba", "st") and not number.is_integer():
            raise MisconfigurationValueError(f"`{name}` can not be a part of {UNITS[unit]}; got {given!r}.")
        return cls(int(number) if number.is_integer() else number, unit)  # type: ignore[arg-type]

    @property
    def time(self) -> timedelta | None:
        """The time, or None for what is counted."""
        return timedelta(seconds=self.value) if self.unit == "s" else None


def _span(given: Mapping[str, Any], name: str) -> timedelta:
    try:
        return timedelta(**given)
    except TypeError as error:
        raise MisconfigurationTypeError(
            f"`{name}` must hold arguments of `datetime.timedelta`, such as {{'hours': 12}}; got {dict(given)!r}:"
            f" {error}."
        ) from error


def _clock(given: str, name: str) -> float:
    parts = given.strip().split(":")
    if len(parts) != 4:
        raise MisconfigurationValueError(
            f"Invalid time format for `{name}`: {given!r}. Expected 'DD:HH:MM:SS', such as '00:12:00:00' for 12 hours."
        )
    if not all(part.strip().isdecimal() for part in parts):
        raise MisconfigurationValueError(f"Non-integer component in `{name}` string: {given!r}. Use 'DD:HH:MM:SS'.")
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
