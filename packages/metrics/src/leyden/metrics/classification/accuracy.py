# SPDX-License-Identifier: Apache-2.0
"""Accuracy: the share of right predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from leyden.metrics.classification.arguments import Average, Input, MultidimAverage, Task, check_average
from leyden.metrics.classification.multiclass import MulticlassCounts
from leyden.metrics.classification.scores import averaged, ratio, without
from leyden.metrics.classification.task import TaskDoor, of_task
from leyden.metrics.classification.threshold import ThresholdCounts
from leyden.metrics.metric import Metric


def _share_of_right(matrix: Tensor) -> Tensor:
    return ratio(matrix[..., 0, 0] + matrix[..., 1, 1], matrix.sum((-2, -1)))


class Accuracy(Metric, metaclass=TaskDoor):
    """Accuracy of a binary, multiclass or multilabel task.

    Calling this class builds `BinaryAccuracy`, `MulticlassAccuracy` or `MultilabelAccuracy`, which are its subclasses.

    Args:
        task: ``"binary"``, ``"multiclass"`` or ``"multilabel"``.
        threshold: Binary and multilabel: the probability above which a score means 1.
        num_classes: Multiclass: the number of classes.
        num_labels: Multilabel: the number of labels.
        average: Multiclass and multilabel: ``"micro"`` counts all samples together, ``"macro"`` averages the classes,
            ``"weighted"`` weighs them by their targets, ``"none"`` or None gives one value per class.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample.
        top_k: Multiclass: among how many of the highest scores the target must be.
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked.
        **kwargs: Arguments of the task's class and of `Metric`.

    Raises:
        MetricValueError: If an argument is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import Accuracy
        >>> metric = Accuracy(task="multiclass", num_classes=3)
        >>> metric.update(torch.tensor([2, 1, 0, 1]), torch.tensor([2, 1, 0, 0]))
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = True

    if TYPE_CHECKING:

        def __init__(
            self,
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
        average: Average = "micro",
        multidim_average: MultidimAverage = "global",
        top_k: int = 1,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> Metric:
        classes: dict[str, type[Metric]] = {
            "binary": BinaryAccuracy,
            "multiclass": MulticlassAccuracy,
            "multilabel": MultilabelAccuracy,
        }
        arguments = {
            "threshold": threshold,
            "num_classes": num_classes,
            "num_labels": num_labels,
            "average": average,
            "top_k": top_k,
        }
        shared = {"multidim_average": multidim_average, "ignore_index": ignore_index, "validate_args": validate_args}
        return of_task(classes, task, arguments, shared | kwargs)


class BinaryAccuracy(ThresholdCounts, Accuracy):
    """Share of right predictions of a binary task.

    Args:
        threshold: The probability above which a score means 1.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import BinaryAccuracy
        >>> preds = torch.tensor([0.2, 0.7, 0.6, 0.9])
        >>> target = torch.tensor([0, 1, 0, 1])
        >>> metric = BinaryAccuracy()
        >>> metric(preds, target)
        tensor(0.7500)
    """

    def __init__(
        self,
        threshold: float = 0.5,
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(None, threshold, multidim_average, ignore_index, validate_args, input, **options)

    def compute(self) -> Tensor:
        """Return the accuracy, shape ``()``, samplewise ``(N,)``."""
        return _share_of_right(self._matrix())


class MulticlassAccuracy(MulticlassCounts, Accuracy):
    """Accuracy of a multiclass task; per class it is the share of the class that was found (its recall).

    Args:
        num_classes: The number of classes C.
        top_k: Among how many of the highest scores the target must be.
        average: ``"micro"`` counts all classes together, ``"macro"`` averages them (absent and ignored ones left out),
            ``"weighted"`` weighs them by their targets, ``"none"`` or None gives one value each, shape ``(C,)``.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MulticlassAccuracy
        >>> preds = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]])
        >>> target = torch.tensor([0, 1, 0, 2])
        >>> metric = MulticlassAccuracy(num_classes=3)
        >>> metric(preds, target)
        tensor(0.8333)
    """

    def __init__(
        self,
        num_classes: int,
        top_k: int = 1,
        average: Average = "macro",
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, top_k, multidim_average, ignore_index, validate_args, **options)
        check_average(average)
        self.average = average

    def compute(self) -> Tensor:
        """Return the accuracy, shape ``()``, without average ``(C,)``; samplewise with a first dimension N."""
        counts = self._counts()
        if self.average == "micro":
            counts = counts.over_classes()
        score = ratio(counts.hits, counts.actual)
        if self.average == "micro":
            return score
        seen = counts.actual + counts.predicted if self.top_k == 1 else counts.actual
        return averaged(score, self.average, counts.actual, without(seen > 0, self.ignore_index))


class MultilabelAccuracy(ThresholdCounts, Accuracy):
    """Share of right predictions of a multilabel task.

    Args:
        num_labels: The number of labels L.
        threshold: The probability above which a score means 1.
        average: ``"micro"`` counts all labels together, ``"macro"`` averages them, ``"weighted"`` weighs them by their
            targets, ``"none"`` or None gives one value each, shape ``(L,)``.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MultilabelAccuracy
        >>> preds = torch.tensor([[0.9, 0.2], [0.3, 0.8], [0.7, 0.6]])
        >>> target = torch.tensor([[1, 0], [0, 1], [0, 1]])
        >>> metric = MultilabelAccuracy(num_labels=2)
        >>> metric(preds, target)
        tensor(0.8333)
    """

    def __init__(
        self,
        num_labels: int,
        threshold: float = 0.5,
        average: Average = "macro",
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(num_labels, threshold, multidim_average, ignore_index, validate_args, input, **options)
        check_average(average)
        self.average = average

    def compute(self) -> Tensor:
        """Return the accuracy, shape ``()``, without average ``(L,)``; samplewise with a first dimension N."""
        matrix = self._matrix()
        if self.average == "micro":
            return _share_of_right(matrix.sum(-3))
        return averaged(_share_of_right(matrix), self.average, matrix[..., 1, :].sum(-1))
