# SPDX-License-Identifier: Apache-2.0
"""Which process of a distributed run this is, and what only rank zero does."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from leyden.core.errors import LightningDeprecationWarning

# In the order of trust: a launcher's global rank, then what schedulers set for each task.
RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
)
P = ParamSpec("P")
T = TypeVar("T")
# ported code sets the level of the logger by the name of this path
_LOG = logging.getLogger("leyden.core.utilities.rank_zero")


def process_rank() -> int:
    """Return this process's global rank: of the process group if there is one, else from the environment, else 0.

    Returns:
        The rank.

    Examples:
        >>> from leyden.core.ranks import process_rank
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


class RankZeroOnly:
    """Decorator that lets a function run on rank zero only; elsewhere it returns a default.

    Attributes:
        rank: The rank, if it is not to be found out at each call.

    Examples:
        >>> from leyden.core.ranks import rank_zero_only
        >>> @rank_zero_only
        ... def greet():
        ...     return "hello"
        >>> greet()
        'hello'
    """

    def __init__(self) -> None:
        self._rank: int | None = None

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return process_rank() if self._rank is None else self._rank

    @rank.setter
    def rank(self, rank: int | None) -> None:
        self._rank = rank

    def __call__(self, fn: Callable[P, T], default: T | None = None) -> Callable[P, T | None]:
        """Return ``fn`` for rank zero.

        Args:
            fn: What only rank zero does.
            default: What the other ranks return.
        """

        @wraps(fn)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
            return fn(*args, **kwargs) if self.rank == 0 else default

        return guarded


rank_zero_only = RankZeroOnly()


@rank_zero_only
def rank_zero_debug(*args: Any, stacklevel: int = 3, **kwargs: Any) -> None:
    """Write to the log, at level debug, on rank zero."""
    _LOG.debug(*args, stacklevel=stacklevel, **kwargs)


@rank_zero_only
def rank_zero_info(*args: Any, stacklevel: int = 3, **kwargs: Any) -> None:
    """Write to the log, at level info, on rank zero."""
    _LOG.info(*args, stacklevel=stacklevel, **kwargs)


@rank_zero_only
def rank_zero_warn(message: str | Warning, stacklevel: int = 3, **kwargs: Any) -> None:
    """Show a warning on rank zero; arguments as in `warnings.warn`."""
    warnings.warn(message, stacklevel=stacklevel, **kwargs)


@rank_zero_only
def rank_zero_deprecation(message: str | Warning, stacklevel: int = 3, **kwargs: Any) -> None:
    """Show a warning about an old spelling on rank zero."""
    category = kwargs.pop("category", LightningDeprecationWarning)
    warnings.warn(message, stacklevel=stacklevel, category=category, **kwargs)
