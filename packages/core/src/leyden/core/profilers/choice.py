# SPDX-License-Identifier: Apache-2.0
"""Which profiler ``Trainer(profiler=...)`` means."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError
from leyden.core.profilers.profiler import Profiler

_NAMES = {
    "simple": ("leyden.core.profilers.simple", "SimpleProfiler"),
    "advanced": ("leyden.core.profilers.advanced", "AdvancedProfiler"),
    "pytorch": ("leyden.core.profilers.pytorch", "PyTorchProfiler"),
}


def find_profiler(given: Any) -> Profiler | None:
    """Return the profiler that a flag asks for.

    Args:
        given: A profiler, the name of one in any case, or None.

    Returns:
        The profiler, or None if nothing is to be profiled.

    Raises:
        MisconfigurationValueError: There is no profiler of that name.
        MisconfigurationTypeError: It is neither a name nor a profiler.

    Examples:
        >>> from leyden.core.profilers.choice import find_profiler
        >>> type(find_profiler("simple")).__name__
        'SimpleProfiler'
    """
    if given is None or given is False:
        return None
    if isinstance(given, Profiler):
        return given
    if not isinstance(given, str):
        raise MisconfigurationTypeError(
            f"`profiler` must be None, a profiler or the name of one ({', '.join(_NAMES)}); got {given!r}."
        )
    if given.lower() not in _NAMES:
        raise MisconfigurationValueError(
            "When passing string value for the `profiler` parameter of `Trainer`, it can only be one of"
            f" {list(_NAMES)}; got {given!r}."
        )
    module, name = _NAMES[given.lower()]
    made: Profiler = getattr(import_module(module), name)()
    return made
