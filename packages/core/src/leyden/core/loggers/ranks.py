# SPDX-License-Identifier: Apache-2.0
"""Which process of a distributed run this is: only rank zero writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from leyden.core.loggers.dummy import DummyExperiment

# In the order of trust: a launcher's global rank, then what schedulers set for each task.
RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
)


def process_rank() -> int:
    """Return this process's global rank: of the process group if there is one, else from the environment, else 0.

    Returns:
        The rank.

    Examples:
        >>> process_rank()
        0
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    for variable in RANK_VARIABLES:
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0


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
