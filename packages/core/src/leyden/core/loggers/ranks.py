# SPDX-License-Identifier: Apache-2.0
"""Only rank zero writes: what every other process has instead of a client."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from leyden.core.loggers.dummy_experiment import DummyExperiment
from leyden.core.ranks import process_rank as process_rank


def rank_zero_experiment(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let a logger's ``experiment`` be its client on rank zero and a `DummyExperiment` on every other rank.

    Args:
        get: The function under ``@property`` that returns the client.

    Returns:
        The guarded function.

    Examples:
        >>> class Mine:
        ...     @property
        ...     @rank_zero_experiment
        ...     def experiment(self):
        ...         return "client"
        >>> Mine().experiment
        'client'
    """

    @wraps(get)
    def guarded(logger: Any) -> Any:
        return get(logger) if process_rank() == 0 else DummyExperiment()

    return guarded
