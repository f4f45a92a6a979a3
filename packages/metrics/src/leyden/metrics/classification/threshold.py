# SPDX-License-Identifier: Apache-2.0
"""What every metric of a binary or multilabel task counts."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from leyden.metrics.classification.arguments import (
    Input,
    MultidimAverage,
    check_choice,
    check_count,
    check_ignore_index,
    check_threshold,
    shown,
)
from leyden.metrics.classification.guards import add_range, check_labels, check_scores, whole, widen
from leyden.metrics.classification.scores import Counts
from leyden.metrics.classification.units import Units
from leyden.metrics.errors import MetricValueError
from leyden.metrics.metric import Metric

# Up to here one binary search costs a seventh of two comparisons; far beyond, several times as much.
_FEW = 8192


class ThresholdCounts(Metric):
    """Counts, per label and target, how many scores lie below both cuts, between them, and above both.

    One cut is the threshold (scores read as probabilities), the other its logit (scores read as logits). Both readings
    are counted, and ``compute`` takes the one that fits everything seen since the reset: what a batch happens to hold
    decides nothing. The counters are ``cells`` (L, 2, 3); samplewise they grow: ``samples``, (N, L, 2, 3) a batch.
    """

    is_differentiable = False
    full_state_update = False
    _inputs_only = True
    _epoch_wide = ("score_low", "score_high")

    def __init__(
        self,
        num_labels: int | None,
        threshold: float = 0.5,
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if num_labels is not None:
            check_count("num_labels", num_labels, 2)
        check_threshold(threshold)
        check_choice("multidim_average", multidim_average, ("global", "samplewise"))
        check_ignore_index(ignore_index)
        check_choice("input", input, ("auto", "probs", "logits"))
        self.num_labels = num_labels
        self.threshold = threshold
        self.multidim_average = multidim_average
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self.input = input
        self._labels = num_labels or 1
        self._cuts = sorted((threshold, _logit(threshold)))
        self._edges = torch.tensor(self._cuts)
        self._cells_shape = (self._labels, 2, 3)
        self._units = Units()
        if multidim_average == "samplewise":
            self.add_state("samples", [], "cat")
        else:
            self.add_state("cells", torch.zeros(self._cells_shape, dtype=torch.int64), "sum")
        add_range(self._store, "score", torch.float32)
        if validate_args:
            add_range(self._store, "target", torch.int64)
            add_range(self._store, "preds", torch.int64)

    def extra_repr(self) -> str:
        """Name the arguments."""
        return shown(self)

    def update_key(self) -> Hashable:
        """Return what decides the counters: every argument but those that apply in ``compute``."""
        arguments = (self.num_labels, self.threshold, self.multidim_average, self.ignore_index)
        return ("threshold", *arguments, self.validate_args, self._eager)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: Labels 0 and 1, int or bool, or probabilities or logits, float; shape ``(N, ...)`` for a binary task,
                ``(N, L, ...)`` for a multilabel task.
            target: Labels 0 and 1, of the same shape.
        """
        if self.validate_args:
            self._check_shapes(preds, target)
        if target.numel() == 0:
            return
        values = self._store.values
        if target.dtype != torch.int64:
            target = whole(target)
        unit: Tensor | None = None
        if self.ignore_index is not None:
            keep = target != self.ignore_index
            target, preds = target * keep, preds.masked_fill(~keep, 0)
            unit = keep.long()
        if preds.is_floating_point():
            widen(values, "score", preds)
            level = self._levels(preds)
        else:
            labels = whole(preds)
            if self.validate_args:
                widen(values, "preds", labels)
            level = labels * 2
        if self.validate_args:
            widen(values, "target", target)
        self._count(values, torch.add(level, target, alpha=3), unit)

    def _levels(self, preds: Tensor) -> Tensor:
        """Return how many of the two cuts each score exceeds."""
        if preds.numel() > _FEW or preds.dtype != torch.float32:
            return torch.add((preds > self._cuts[0]).long(), preds > self._cuts[1])
        if self._edges.device != preds.device:
            self._edges = self._edges.to(preds.device)
        return torch.bucketize(preds, self._edges)

    def _check_shapes(self, preds: Tensor, target: Tensor) -> None:
        rule = None
        shape, least = preds.shape, 2 if self.num_labels is None else 3
        if shape != target.shape:
            rule = "preds and target must have the same shape"
        elif self.num_labels is not None and (len(shape) < 2 or shape[1] != self.num_labels):
            rule = f"preds and target must be (N, L, ...) with L = num_labels = {self.num_labels}"
        elif self.multidim_average == "samplewise" and len(shape) < least:
            rule = f"multidim_average='samplewise' needs {least} dimensions"
        if rule is not None:
            raise MetricValueError(f"{rule}; got preds {tuple(shape)} and target {tuple(target.shape)}")

    def _count(self, values: dict[str, Any], cells: Tensor, unit: Tensor | None) -> None:
        # Out of range is reported in compute; until then such a pair must not reach another label or outside.
        cells.clamp_(0, 5)
        samples = len(cells)
        if self._labels > 1:
            offsets = torch.arange(0, 6 * self._labels, 6, device=cells.device)
            cells = cells.reshape(samples, self._labels, -1) + offsets.unsqueeze(1)
        if self.multidim_average == "samplewise":
            size = 6 * self._labels
            cells = cells.reshape(samples, -1) + torch.arange(0, samples * size, size, device=cells.device).unsqueeze(1)
            counts = torch.zeros(samples * size, dtype=torch.int64, device=cells.device)
            values["samples"].append(counts.reshape(samples, *self._cells_shape))
        else:
            counts = values["cells"].view(-1)
        cells = cells.flatten()
        counts.index_add_(0, cells, self._units.like(cells) if unit is None else unit.flatten())

    def _matrix(self) -> Tensor:
        """Return confusion matrices, ``(..., 2, 2)`` for a binary and ``(..., L, 2, 2)`` for a multilabel task."""
        values = self._store.values
        if "cells" in values:
            cells = values["cells"]
        else:
            empty = torch.zeros(0, *self._cells_shape, dtype=torch.int64, device=self._store.device)
            cells = torch.cat([empty, *values["samples"]])
        readings = [torch.stack([cells[..., : i + 1].sum(-1), cells[..., i + 1 :].sum(-1)], -1) for i in (0, 1)]
        first = int(self._cuts[0] != self.threshold)
        probs, logits = readings[first], readings[1 - first]
        if self.input == "auto":
            outside = (values["score_low"] < 0) | (values["score_high"] > 1)
            matrix = torch.where(outside, logits, probs)
        else:
            matrix = probs if self.input == "probs" else logits
        return matrix.squeeze(-3) if self.num_labels is None else matrix

    def _counts(self) -> Counts:
        matrix = self._matrix()
        return Counts(matrix[..., 1, 1], matrix[..., 1].sum(-1), matrix[..., 1, :].sum(-1))

    def _check_values(self) -> None:
        if not self.validate_args:
            return
        values, name = self._store.values, type(self).__name__
        ends = torch.stack([values[f"{n}_{end}"] for n in ("target", "preds") for end in ("low", "high")]).tolist()
        check_labels(name, "target", ends[0], ends[1], 2, self.ignore_index)
        check_labels(name, "preds", ends[2], ends[3], 2, None)
        low, high = torch.stack([values["score_low"], values["score_high"]]).tolist()
        check_scores(name, low, high, self.input == "probs")


def _logit(probability: float) -> float:
    if probability in (0.0, 1.0):
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1.0 - probability))
