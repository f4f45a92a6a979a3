# SPDX-License-Identifier: Apache-2.0
"""What ``barebones=True`` switches off, and refuses to have beside it."""

from __future__ import annotations

from typing import Any

from leyden.core.errors import MisconfigurationValueError
from leyden.core.ranks import rank_zero_info

COSTS = {
    "enable_checkpointing": "Checkpointing",
    "logger": "Logging",
    "enable_progress_bar": "The progress bar",
    "log_every_n_steps": "Logging",
    "enable_model_summary": "The model summary",
    "num_sanity_val_steps": "Sanity checking",
    "fast_dev_run": "A run that tries the code",
    "detect_anomaly": "Looking for anomalies",
    "profiler": "Profiling",
}


def refuse_beside_barebones(**asked: Any) -> None:
    """Raise if something that costs time was asked for, and say what is off.

    Args:
        **asked: What the user gave for the flags in `COSTS`.

    Raises:
        MisconfigurationValueError: One of them was asked for.
    """
    for flag, what in COSTS.items():
        if asked[flag]:
            raise MisconfigurationValueError(
                f"`Trainer(barebones=True, {flag}={asked[flag]!r})` was passed. {what} can impact raw speed, so it is"
                " disabled in barebones mode."
            )
    rank_zero_info(
        "You are running in `Trainer(barebones=True)` mode: what costs time is off, so that the rest can be measured:"
        f" {', '.join(COSTS)}, `self.log` and `self.log_dict`."
    )
