# SPDX-License-Identifier: Apache-2.0
"""Confusion matrix of one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from leyden.metrics.classification.arguments import Input, Normalize, Task
from leyden.metrics.classification.confusion_matrix import (
    BinaryConfusionMatrix,
    ConfusionMatrix,
    MulticlassConfusionMatrix,
    MultilabelConfusionMatrix,
)
from leyden.metrics.functional.once import once


def confusion_matrix(
    preds: Tensor,
    target: Tensor,
    task: Task,
    threshold: float = 0.5,
    num_classes: int | None = None,
    num_labels: int | None = None,
    normalize: Normalize = None,
    ignore_index: int | None = None,
    validate_args: bool = True,
    **kwargs: Any,
) -> Tensor:
    """Confusion matrix of a binary, multiclass or multilabel task.

    Args:
        preds: Labels or scores, in a shape of the task.
        target: Labels.
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        threshold: The probability above which a score means 1.
        num_classes: The number of classes C.
        num_labels: The number of labels L.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        **kwargs: Further arguments of the task's class.

    Returns:
        The confusion matrix, as `ConfusionMatrix` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import confusion_matrix
        >>> preds = torch.tensor([2, 1, 0, 1])
        >>> target = torch.tensor([2, 1, 0, 0])
        >>> confusion_matrix(preds, target, "multiclass", num_classes=3)
        tensor([[1, 1, 0],
                [0, 1, 0],
                [0, 0, 1]])
    """
    metric = ConfusionMatrix(
        task,
        threshold=threshold,
        num_classes=num_classes,
        num_labels=num_labels,
        normalize=normalize,
        ignore_index=ignore_index,
        validate_args=validate_args,
        **kwargs,
    )
    return once(metric, preds, target)


def binary_confusion_matrix(
    preds: Tensor,
    target: Tensor,
    threshold: float = 0.5,
    normalize: Normalize = None,
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    input: Input = "auto",
) -> Tensor:
    """Confusion matrix of a binary task.

    Args:
        preds: Labels, int or bool, or scores, float; shape ``(N, ...)``.
        target: Labels 0 and 1, of the same shape.
        threshold: The probability above which a score means 1.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if any lies outside of 0 to 1.

    Returns:
        The confusion matrix, as `BinaryConfusionMatrix` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import binary_confusion_matrix
        >>> preds = torch.tensor([0.2, 0.7, 0.6, 0.9])
        >>> target = torch.tensor([0, 1, 0, 1])
        >>> binary_confusion_matrix(preds, target)
        tensor([[1, 1],
                [0, 2]])
    """
    metric = BinaryConfusionMatrix(
        threshold=threshold, normalize=normalize, ignore_index=ignore_index, validate_args=validate_args, input=input
    )
    return once(metric, preds, target)


def multiclass_confusion_matrix(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    normalize: Normalize = None,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor:
    """Confusion matrix of a multiclass task.

    Args:
        preds: Labels, int, shape ``(N, ...)``, or scores, float, shape ``(N, C, ...)``.
        target: Labels, int, shape ``(N, ...)``.
        num_classes: The number of classes C.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.

    Returns:
        The confusion matrix, as `MulticlassConfusionMatrix` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import multiclass_confusion_matrix
        >>> preds = torch.tensor([2, 1, 0, 1])
        >>> target = torch.tensor([2, 1, 0, 0])
        >>> multiclass_confusion_matrix(preds, target, num_classes=3)
        tensor([[1, 1, 0],
                [0, 1, 0],
                [0, 0, 1]])
    """
    metric = MulticlassConfusionMatrix(
        num_classes=num_classes, normalize=normalize, ignore_index=ignore_index, validate_args=validate_args
    )
    return once(metric, preds, target)


def multilabel_confusion_matrix(
    preds: Tensor,
    target: Tensor,
    num_labels: int,
    threshold: float = 0.5,
    normalize: Normalize = None,
    ignore_index: int | None = None,
    validate_args: bool = True,
    *,
    input: Input = "auto",
) -> Tensor:
    """Confusion matrix of a multilabel task.

    Args:
        preds: Labels, int or bool, or scores, float; shape ``(N, L, ...)``.
        target: Labels 0 and 1, of the same shape.
        num_labels: The number of labels L.
        threshold: The probability above which a score means 1.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        ignore_index: Targets of this value do not count.
        validate_args: Whether the batch is checked.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if any lies outside of 0 to 1.

    Returns:
        The confusion matrix, as `MultilabelConfusionMatrix` computes it.

    Raises:
        MetricValueError: If an argument or a value is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics.functional import multilabel_confusion_matrix
        >>> preds = torch.tensor([[0.9, 0.2], [0.3, 0.8]])
        >>> target = torch.tensor([[1, 0], [0, 0]])
        >>> multilabel_confusion_matrix(preds, target, num_labels=2)
        tensor([[[1, 0],
                 [0, 1]],
        <BLANKLINE>
                [[1, 1],
                 [0, 0]]])
    """
    metric = MultilabelConfusionMatrix(
        num_labels=num_labels,
        threshold=threshold,
        normalize=normalize,
        ignore_index=ignore_index,
        validate_args=validate_args,
        input=input,
    )
    return once(metric, preds, target)
