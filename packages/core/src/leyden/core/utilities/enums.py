# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the ways to clip gradients."""

from __future__ import annotations

from enum import StrEnum


class GradClipAlgorithmType(StrEnum):
    """What ``gradient_clip_algorithm`` may be."""

    VALUE = "value"
    NORM = "norm"


__all__ = ["GradClipAlgorithmType"]
