# SPDX-License-Identifier: Apache-2.0
"""Accuracy of one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from leyden.metrics.classification.accuracy import (
    Accuracy,
    BinaryAccuracy,
    MulticlassAccuracy,
    MultilabelAccuracy,
)
from leyden.metrics.classification.arguments import Average, Input, MultidimAverage, Task
from leyden.metrics.functional.once import once


def accuracy(
    preds: Tensor,
    target: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    average: Average = "micro",
    multidim_average: MultidimAverage = "global",
    top_k: int = 1,
    ignore_index: int | None = None,
    validate_args: bool = True,
    **kwargs: Any,
) -> Tensor:
    """Share of right predictions of a binary, multiclass or multilabel task.

    Args:
        preds: Labels or scores, in a shape of the task.
        target: Labels.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        threshold: The probability above which a score means 1.
        num_classes: The number of classes C.
        num_labels: The number of labels L.
        average: ``"micro"``, ``"macro"``, ``"weighted"``, or ``"none"`` or None for one value per class or label.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample.
        top_k: Among how many of the highest scores the target must be.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        **kwargs: Further arguments of the task's class.

    Returns:
        The accuracy, as `Accuracy` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import accuracy
        >>> preds = torch.tensor([2, 1, 0, 1])
        >>> target = torch.tensor([2, 1, 0, 0])
        >>> accuracy(preds, target, "multiclass", num_classes=3)
        tensor(0.7500)
    """
    metric = Accuracy(
        task,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        average=average,
        multidim_average=multidim_average,
        top_k=top_k,
        ignore_index=ignore_index,
        validate_args=validate_args,
        **kwargs,
    )
    return once(metric, preds, target)


def binary_accuracy(
    preds: Tensor,
    target: Tensor,
    threshold: float = 0.5,
    multidim_average: MultidimAverage = "global",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    input: Input = "auto",
) -> Tensor:
    """Share of right predictions of a binary task.

    Args:
        preds: Labels, int or bool, or scores, float; shape ``(N, ...)``.
        target: Labels 0 and 1, of the same shape.
        threshold: The probability above which a score means 1.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if any lies outside of 0 to 1.

    Returns:
        The accuracy, as `BinaryAccuracy` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import binary_accuracy
        >>> preds = torch.tensor([0.2, 0.7, 0.6, 0.9])
        >>> target = torch.tensor([0, 1, 0, 1])
        >>> binary_accuracy(preds, target)
        tensor(0.7500)
    """
    metric = BinaryAccuracy(
        threshold=threshold,
        multidim_average=multidim_average,
        ignore_index=ignore_index,
        validate_args=validate_args,
        input=input,
    )
    return once(metric, preds, target)


def multiclass_accuracy(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    average: Average = "macro",
    top_k: int = 1,
    multidim_average: MultidimAverage = "global",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor:
    """Share of right predictions of a multiclass task.

    Args:
        preds: Labels, int, shape ``(N, ...)``, or scores, float, shape ``(N, C, ...)``.
        target: Labels, int, shape ``(N, ...)``.
        num_classes: The number of classes C.
        average: ``"micro"``, ``"macro"``, ``"weighted"``, or ``"none"`` or None for one value per class or label.
        top_k: Among how many of the highest scores the target must be.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.

    Returns:
        The accuracy, as `MulticlassAccuracy` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import multiclass_accuracy
        >>> preds = torch.tensor([2, 1, 0, 1])
        >>> target = torch.tensor([2, 1, 0, 0])
        >>> multiclass_accuracy(preds, target, num_classes=3)
        tensor(0.8333)
    """
    metric = MulticlassAccuracy(
        num_classes=num_classes,
        average=average,
        top_k=top_k,
        multidim_average=multidim_average,
        ignore_index=ignore_index,
        validate_args=validate_args,
    )
    return once(metric, preds, target)


def multilabel_accuracy(
    preds: Tensor,
    target: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    average: Average = "macro",
    multidim_average: MultidimAverage = "global",
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    input: Input = "auto",
) -> Tensor:
    """Share of right predictions of a multilabel task.

    Args:
        preds: Labels, int or bool, or scores, float; shape ``(N, L, ...)``.
        target: Labels 0 and 1, of the same shape.
        num_labels: The number of labels L.
        threshold: The probability above which a score means 1.
        average: ``"micro"``, ``"macro"``, ``"weighted"``, or ``"none"`` or None for one value per class or label.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if any lies outside of 0 to 1.

    Returns:
        The accuracy, as `MultilabelAccuracy` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import multilabel_accuracy
        >>> preds = torch.tensor([[0.9, 0.2], [0.3, 0.8]])
        >>> target = torch.tensor([[1, 0], [0, 0]])
        >>> multilabel_accuracy(preds, target, num_labels=2)
        tensor(0.7500)
    """
    metric = MultilabelAccuracy(
        num_labels=num_labels,
        threshold=threshold,
        average=average,
        multidim_average=multidim_average,
        ignore_index=ignore_index,
        validate_args=validate_args,
        input=input,
    )
    return once(metric, preds, target)
