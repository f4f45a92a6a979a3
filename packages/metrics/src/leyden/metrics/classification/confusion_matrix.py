# SPDX-License-Identifier: Apache-2.0
"""Confusion matrices: how often each class was predicted for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from leyden.metrics.classification.arguments import Input, Normalize, Task, check_choice
from leyden.metrics.classification.multiclass import MulticlassCounts
from leyden.metrics.classification.scores import ratio
from leyden.metrics.classification.task import TaskDoor, of_task
from leyden.metrics.classification.threshold import ThresholdCounts
from leyden.metrics.metric import Metric


def _normalized(matrix: Tensor, normalize: Normalize) -> Tensor:
    if normalize in (None, "none"):
        return matrix.clone()
    dims = {"true": [-1], "pred": [-2], "all": [-2, -1]}[str(normalize)]
    return ratio(matrix, matrix.sum(dims, keepdim=True))


def _check_normalize(normalize: Normalize) -> None:
    check_choice("normalize", normalize, ("true", "pred", "all", "none", None))


class ConfusionMatrix(Metric, metaclass=TaskDoor):
    """Confusion matrix of a binary, multiclass or multilabel task.

    Calling this class builds `BinaryConfusionMatrix`, `MulticlassConfusionMatrix` or `MultilabelConfusionMatrix`,
    which are its subclasses. Rows are targets, columns predictions.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        threshold: Binary and multilabel: the probability above which a score means 1.
        num_classes: Multiclass: the number of classes.
        num_labels: Multilabel: the number of labels.
        normalize: ``"true"`` divides by the sum of the row, ``"pred"`` by that of the column, ``"all"`` by that of the
            matrix; what would be 0 / 0 is 0. ``"none"`` or None gives counts.
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked.
        **kwargs: Arguments of the task's class and of `Metric`.

    Raises:
        MetricValueError: If an argument is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import ConfusionMatrix
        >>> metric = ConfusionMatrix(task="multiclass", num_classes=2)
        >>> metric.update(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 1, 0, 0]))
        >>> metric.compute()
        tensor([[1, 1],
                [0, 2]])
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            task: Task,
            threshold: float = 0.5,
            num_classes: int | None = None,
            num_labels: int | None = None,
            normalize: Normalize = None,
            ignore_index: int | None = None,
            validate_args: bool = True,
            **kwargs: Any,
        ) -> None: ...

        def update(self, preds: Tensor, target: Tensor) -> None:
            """Add one batch."""

        def compute(self) -> Tensor:
            """Return the value."""

    @staticmethod
    def _open(
        task: Task,
        threshold: float = 0.5,
        num_classes: int | None = None,
        num_labels: int | None = None,
        normalize: Normalize = None,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> Metric:
        classes: dict[str, type[Metric]] = {
            "binary": BinaryConfusionMatrix,
            "multiclass": MulticlassConfusionMatrix,
            "multilabel": MultilabelConfusionMatrix,
        }
        arguments = {"threshold": threshold, "num_classes": num_classes, "num_labels": num_labels}
        shared = {"normalize": normalize, "ignore_index": ignore_index, "validate_args": validate_args}
        return of_task(classes, task, arguments, shared | kwargs)


class BinaryConfusionMatrix(ThresholdCounts, ConfusionMatrix):
    """Confusion matrix of a binary task.

    Args:
        threshold: The probability above which a score means 1.
        ignore_index: Targets of this value do not count.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import BinaryConfusionMatrix
        >>> metric = BinaryConfusionMatrix()
        >>> metric(torch.tensor([0.2, 0.7, 0.6, 0.9]), torch.tensor([0, 1, 0, 1]))
        tensor([[1, 1],
                [0, 2]])
    """

    def __init__(
        self,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        normalize: Normalize = None,
        validate_args: bool = True,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(None, threshold, "global", ignore_index, validate_args, input, **options)
        _check_normalize(normalize)
        self.normalize = normalize

    def compute(self) -> Tensor:
        """Return the matrix, shape ``(2, 2)``."""
        return _normalized(self._matrix(), self.normalize)


class MulticlassConfusionMatrix(MulticlassCounts, ConfusionMatrix):
    """Confusion matrix of a multiclass task.

    Args:
        num_classes: The number of classes C.
        ignore_index: Targets of this value do not count.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MulticlassConfusionMatrix
        >>> metric = MulticlassConfusionMatrix(num_classes=3, normalize="true")
        >>> metric(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 0, 2]))
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        normalize: Normalize = None,
        validate_args: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, 1, "global", ignore_index, validate_args, whole_matrix=True, **options)
        _check_normalize(normalize)
        self.normalize = normalize

    def compute(self) -> Tensor:
        """Return the matrix, shape ``(C, C)``."""
        return _normalized(self._matrix(), self.normalize)


class MultilabelConfusionMatrix(ThresholdCounts, ConfusionMatrix):
    """One confusion matrix per label of a multilabel task.

    Args:
        num_labels: The number of labels L.
        threshold: The probability above which a score means 1.
        ignore_index: Targets of this value do not count.
        normalize: ``"true"``, ``"pred"``, ``"all"``, or ``"none"`` or None for counts.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MultilabelConfusionMatrix
        >>> metric = MultilabelConfusionMatrix(num_labels=2)
        >>> metric(torch.tensor([[0.9, 0.2], [0.3, 0.8]]), torch.tensor([[1, 0], [0, 0]]))
        tensor([[[1, 0],
                 [0, 1]],
        <BLANKLINE>
                [[1, 1],
                 [0, 0]]])
    """

    def __init__(
        self,
        num_labels: int,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        normalize: Normalize = None,
        validate_args: bool = True,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(num_labels, threshold, "global", ignore_index, validate_args, input, **options)
        _check_normalize(normalize)
        self.normalize = normalize

    def compute(self) -> Tensor:
        """Return the matrices, shape ``(L, 2, 2)``."""
        return _normalized(self._matrix(), self.normalize)
