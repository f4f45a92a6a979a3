# SPDX-License-Identifier: Apache-2.0
"""Scores from counts of hits, predictions and targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leyden.metrics.classification.arguments import Average


class Counts(NamedTuple):
    """Counts of one shape: ``()`` or ``(N,)`` for a binary task, else with a last dimension of classes or labels.

    Attributes:
        hits: How often 1, or the class, was predicted and right: true positives.
        predicted: How often it was predicted.
        actual: How often it was the target.
    """

    hits: Tensor
    predicted: Tensor
    actual: Tensor

    def over_classes(self) -> Counts:
        """Return the sums over the classes or labels."""
        return Counts(*(count.sum(-1) for count in self))


def ratio(numerator: Tensor, denominator: Tensor, zero_division: float = 0.0) -> Tensor:
    """Divide counts, with a given value for 0 / 0, in the default dtype."""
    return (numerator / denominator).nan_to_num(zero_division)


def averaged(score: Tensor, average: Average, actual: Tensor, present: Tensor | None = None) -> Tensor:
    """Average a score over the last dimension.

    Args:
        score: One score per class or label.
        average: ``"macro"``, ``"weighted"``, or none.
        actual: How many targets each class or label has: the weights of ``"weighted"``.
        present: Which classes take part in ``"macro"``; None for all.
    """
    if average in (None, "none"):
        return score
    weights = actual if average == "weighted" else present
    if weights is None:
        return score.mean(-1)
    return ratio((score * weights).sum(-1), weights.sum(-1))


def without(present: Tensor, ignore_index: int | None) -> Tensor:
    """Return the mask of present classes without the ignored one."""
    if ignore_index is None or not 0 <= ignore_index < present.shape[-1]:
        return present
    classes = torch.arange(present.shape[-1], device=present.device)
    return present & (classes != ignore_index)
