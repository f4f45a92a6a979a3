# SPDX-License-Identifier: Apache-2.0
"""The Trainer: its flags and verbs, and how a call of a verb becomes a run."""

from __future__ import annotations

from leyden.core.trainer.trainer import Trainer as Trainer

__all__ = ["Trainer"]
