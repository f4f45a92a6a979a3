# SPDX-License-Identifier: Apache-2.0
"""What every metric of a multiclass task counts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from leyden.metrics.classification.arguments import (
    MultidimAverage,
    check_choice,
    check_count,
    check_ignore_index,
    shown,
)
from leyden.metrics.classification.guards import add_range, check_labels, check_scores, whole, widen
from leyden.metrics.classification.scores import Counts
from leyden.metrics.classification.units import Units
from leyden.metrics.errors import MetricValueError
from leyden.metrics.metric import Metric
from leyden.metrics.states import Store

# A confusion matrix of 30 x 30 counters still travels in the header of a sync, and is the cheapest thing to update.
_SMALL = 30


class MulticlassCounts(Metric):
    """Counts how often each class was predicted for each class.

    The counters are a confusion matrix ``confmat`` (C, C) if there are few classes or the whole matrix is wanted, else
    ``counts`` (3, C): hits, predictions and targets per class. Samplewise counters grow: ``samples``, (N, 3, C).
    """

    is_differentiable = False
    full_state_update = False
    _inputs_only = True

    def __init__(
        self,
        num_classes: int,
        top_k: int = 1,
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        whole_matrix: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_count("num_classes", num_classes, 2)
        check_count("top_k", top_k, 1, num_classes)
        check_choice("multidim_average", multidim_average, ("global", "samplewise"))
        check_ignore_index(ignore_index)
        self.num_classes = num_classes
        self.top_k = top_k
        self.multidim_average = multidim_average
        self.ignore_index = ignore_index
        self.validate_args = validate_args
        self._units = Units()
        matrix = whole_matrix or num_classes <= _SMALL
        self._use_layout("samples" if multidim_average == "samplewise" else "confmat" if matrix else "counts")

    def _use_layout(self, layout: str) -> None:
        classes = self.num_classes
        self.__dict__["_store"] = Store()
        if layout == "samples":
            self.add_state("samples", [], "cat")
        else:
            shape = (classes, classes) if layout == "confmat" else (3, classes)
            self.add_state(layout, torch.zeros(shape, dtype=torch.int64), "sum")
        if self.validate_args:
            add_range(self._store, "target", torch.int64)
            add_range(self._store, "preds", torch.int64)
            add_range(self._store, "score", torch.float32)

    def _layout_for(self, names: set[str]) -> None:
        present = self._store.specs.keys() & {"confmat", "counts"}
        wanted = names & {"confmat", "counts"}
        if present and wanted and present != wanted:
            placed, device = self._store.placed, self._store.device
            self._use_layout(wanted.pop())
            self._store.move(device)
            self._store.placed = placed

    def extra_repr(self) -> str:
        """Name the arguments."""
        return shown(self)

    def update_key(self) -> Hashable:
        """Return what decides the counters: every argument but those that apply in ``compute``."""
        arguments = (self.num_classes, self.top_k, self.multidim_average, self.ignore_index)
        return ("multiclass", *arguments, self.validate_args, self._eager)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            preds: Labels, int, shape ``(N, ...)``, or probabilities or logits, float, shape ``(N, C, ...)``.
            target: Labels, int, shape ``(N, ...)``.
        """
        scores = preds.ndim == target.ndim + 1
        if self.validate_args:
            self._check_shapes(preds, target, scores)
        if target.numel() == 0:
            return
        values = self._store.values
        if target.dtype != torch.int64:
            target = whole(target)
        unit: Tensor | None = None
        if self.ignore_index is not None:
            keep = target != self.ignore_index
            target = target * keep
            unit = keep.long()
        if scores:
            best, labels = self._labels(preds, target)
            if self.validate_args:
                highest = best.max() if unit is None else best.masked_fill(unit == 0, 0.0).max()
                values["score_high"] = torch.maximum(values["score_high"], highest)
        else:
            labels = whole(preds) if unit is None else whole(preds) * unit
            if self.validate_args:
                widen(values, "preds", labels)
        if self.validate_args:
            widen(values, "target", target)
        self._count(values, labels, target, unit)

    def _check_shapes(self, preds: Tensor, target: Tensor, scores: bool) -> None:
        rule = None
        shape, labels = preds.shape, target.shape
        if not (scores or shape == labels) or not labels:
            rule = "preds must have the shape of target, (N, ...), or one dimension of classes more, (N, C, ...)"
        elif scores and not preds.is_floating_point():
            rule = f"preds of shape (N, C, ...) must be floating point scores, not {preds.dtype}"
        elif scores and (shape[1] != self.num_classes or shape[0] != labels[0] or shape[2:] != labels[1:]):
            rule = f"preds (N, C, ...) must fit target (N, ...) with C = num_classes = {self.num_classes}"
        elif self.top_k > 1 and not scores:
            rule = f"top_k={self.top_k} needs preds with scores, (N, C, ...)"
        elif self.multidim_average == "samplewise" and len(labels) < 2:
            rule = "multidim_average='samplewise' needs targets of two dimensions"
        if rule is not None:
            raise MetricValueError(f"{rule}; got preds {tuple(shape)} and target {tuple(labels)}")

    def _labels(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest score and the predicted class: the target, if it is among the ``top_k``."""
        if self.top_k == 1:
            highest = preds.max(1)
            return highest.values, highest.indices
        scores, classes = preds.topk(self.top_k, 1)
        hit = (classes == target.unsqueeze(1)).any(1)
        return scores.select(1, 0), torch.where(hit, target, classes.select(1, 0))

    def _count(self, values: dict[str, Any], labels: Tensor, target: Tensor, unit: Tensor | None) -> None:
        classes = self.num_classes
        if "samples" in values:
            values["samples"].append(self._sample_counts(labels, target, unit))
            return
        if target.ndim > 1:
            labels, target = labels.flatten(), target.flatten()
        unit = self._units.like(target) if unit is None else unit.flatten()
        if "confmat" in values:
            # Out of range is reported in compute; until then such a pair must not reach outside of the matrix.
            cells = torch.add(labels, target, alpha=classes).clamp_(0, classes * classes - 1)
            values["confmat"].view(-1).index_add_(0, cells, unit)
        else:
            labels, target = labels.clamp(0, classes - 1), target.clamp(0, classes - 1)
            counts = values["counts"]
            counts[0].index_add_(0, target, (labels == target) * unit)
            counts[1].index_add_(0, labels, unit)
            counts[2].index_add_(0, target, unit)

    def _sample_counts(self, labels: Tensor, target: Tensor, unit: Tensor | None) -> Tensor:
        samples, classes = len(target), self.num_classes
        labels = labels.clamp(0, classes - 1).reshape(samples, -1)
        target = target.clamp(0, classes - 1).reshape(samples, -1)
        unit = torch.ones_like(target) if unit is None else unit.reshape(samples, -1)
        rows = torch.arange(samples, device=target.device).unsqueeze(1) * (3 * classes)
        counts = torch.zeros(samples * 3 * classes, dtype=torch.int64, device=target.device)
        for kind, (where, amount) in enumerate(((target, (labels == target) * unit), (labels, unit), (target, unit))):
            counts.index_add_(0, (rows + kind * classes + where).flatten(), amount.flatten())
        return counts.reshape(samples, 3, classes)

    def _matrix(self) -> Tensor:
        confmat: Tensor = self._store.values["confmat"]
        return confmat

    def _counts(self) -> Counts:
        values = self._store.values
        if "confmat" in values:
            confmat = values["confmat"]
            hits, predicted, actual = confmat.diagonal(), confmat.sum(0), confmat.sum(1)
        elif "counts" in values:
            hits, predicted, actual = values["counts"].unbind(0)
        else:
            empty = torch.zeros(0, 3, self.num_classes, dtype=torch.int64, device=self._store.device)
            hits, predicted, actual = torch.cat([empty, *values["samples"]]).unbind(1)
        return Counts(hits, predicted, actual)

    def _check_values(self) -> None:
        if not self.validate_args:
            return
        values, name = self._store.values, type(self).__name__
        ends = torch.stack([values[f"{n}_{end}"] for n in ("target", "preds") for end in ("low", "high")]).tolist()
        check_labels(name, "target", ends[0], ends[1], self.num_classes, self.ignore_index)
        check_labels(name, "preds", ends[2], ends[3], self.num_classes, None)
        check_scores(name, 0.0, values["score_high"].item(), False)
