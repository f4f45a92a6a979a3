# SPDX-License-Identifier: Apache-2.0
"""The place where ported code looks for the states of a trainer."""

from __future__ import annotations

from leyden.core.states import RunningStage as RunningStage
from leyden.core.states import TrainerFn as TrainerFn
from leyden.core.states import TrainerState as TrainerState
from leyden.core.states import TrainerStatus as TrainerStatus

__all__ = ["RunningStage", "TrainerFn", "TrainerState", "TrainerStatus"]
