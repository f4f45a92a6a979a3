# SPDX-License-Identifier: Apache-2.0
"""What flags do to the whole process: algorithms that always give the same, benchmarks, the search for NaN."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch

from leyden.core.errors import warn


def set_torch_flags(deterministic: bool | str | None, benchmark: bool | None) -> None:
    """Set what ``deterministic`` and ``benchmark`` ask for; None leaves a setting as it is."""
    if deterministic:
        if benchmark:
            warn(
                "LY-T011",
                "You passed `deterministic=True` and `benchmark=True`. cuDNN ignores the first where it does the"
                " second.",
            )
        benchmark = bool(benchmark)
        # cuBLAS reads it when it is first used; without it some of its algorithms differ from call to call
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark
    if deterministic is not None:
        torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")


@contextmanager
def settings(deterministic: bool | str | None, benchmark: bool | None, *, anomaly: bool) -> Generator[None, None, None]:
    """Put the process into the state that a trainer's flags ask for, and back: another trainer may want another."""
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark
    set_torch_flags(deterministic, benchmark)
    try:
        with torch.autograd.set_detect_anomaly(anomaly):
            yield
    finally:
        torch.backends.cudnn.benchmark = cudnn
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
