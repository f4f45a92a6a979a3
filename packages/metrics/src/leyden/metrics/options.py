# SPDX-License-Identifier: Apache-2.0
"""The keywords that every metric takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from leyden.metrics.errors import MetricTypeError, MetricValueError

OPTIONS = ("sync_on_compute", "dist_sync_on_step", "process_group", "compute_with_cache", "validate")


class GroupReference:
    """A process group that copies of a metric share and pickles leave behind: a group lives in one process."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupReference:
        return self

    def __reduce__(self) -> tuple[type[GroupReference], tuple[()]]:
        return GroupReference, ()


def check_options(owner: str, options: Mapping[str, Any]) -> None:
    """Raise for keywords that no metric takes.

    Raises:
        MetricTypeError: If a keyword is unknown; a near one is offered.
        MetricValueError: If ``validate`` has a value that is not allowed.
    """
    for name in options.keys() - set(OPTIONS):
        close = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"the options of every metric are {', '.join(OPTIONS)}"
        raise MetricTypeError(f"{owner} has no argument {name!r}; {hint}")
    if options.get("validate", "deferred") not in ("deferred", "eager"):
        raise MetricValueError(f"validate must be 'deferred' or 'eager'; got {options['validate']!r}")
