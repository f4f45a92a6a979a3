# SPDX-License-Identifier: Apache-2.0
"""F1 score: the harmonic mean of precision and recall (van Rijsbergen, Information Retrieval, 1979)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from leyden.metrics.classification.arguments import Average, Input, MultidimAverage, Task, check_average, check_choice
from leyden.metrics.classification.multiclass import MulticlassCounts
from leyden.metrics.classification.scores import Counts, averaged, ratio, without
from leyden.metrics.classification.task import TaskDoor, of_task
from leyden.metrics.classification.threshold import ThresholdCounts
from leyden.metrics.metric import Metric


def _f1(counts: Counts, zero_division: float) -> Tensor:
    return ratio(2 * counts.hits, counts.predicted + counts.actual, zero_division)


class F1Score(Metric, metaclass=TaskDoor):
    """F1 score of a binary, multiclass or multilabel task.

    Calling this class builds `BinaryF1Score`, `MulticlassF1Score` or `MultilabelF1Score`, which are its subclasses.

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
        zero_division: The value of a class without targets and predictions, 0 or 1.
        **kwargs: Arguments of the task's class and of `Metric`.

    Raises:
        MetricValueError: If an argument is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import F1Score
        >>> metric = F1Score(task="multiclass", num_classes=3)
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
            zero_division: float = 0,
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
        zero_division: float = 0,
        **kwargs: Any,
    ) -> Metric:
        classes: dict[str, type[Metric]] = {
            "binary": BinaryF1Score,
            "multiclass": MulticlassF1Score,
            "multilabel": MultilabelF1Score,
        }
        arguments = {
            "threshold": threshold,
            "num_classes": num_classes,
            "num_labels": num_labels,
            "average": average,
            "top_k": top_k,
        }
        shared = {"multidim_average": multidim_average, "ignore_index": ignore_index, "validate_args": validate_args}
        return of_task(classes, task, arguments, shared | {"zero_division": zero_division} | kwargs)


class BinaryF1Score(ThresholdCounts, F1Score):
    """F1 score of the label 1 of a binary task.

    Args:
        threshold: The probability above which a score means 1.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        zero_division: The value of a class without targets and predictions, 0 or 1.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import BinaryF1Score
        >>> preds = torch.tensor([0.2, 0.7, 0.6, 0.9])
        >>> target = torch.tensor([0, 1, 0, 1])
        >>> metric = BinaryF1Score()
        >>> metric(preds, target)
        tensor(0.8000)
    """

    def __init__(
        self,
        threshold: float = 0.5,
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        zero_division: float = 0,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(None, threshold, multidim_average, ignore_index, validate_args, input, **options)
        check_choice("zero_division", zero_division, (0, 1))
        self.zero_division = float(zero_division)

    def compute(self) -> Tensor:
        """Return the F1 score, shape ``()``, samplewise ``(N,)``."""
        return _f1(self._counts(), self.zero_division)


class MulticlassF1Score(MulticlassCounts, F1Score):
    """F1 score of a multiclass task.

    Args:
        num_classes: The number of classes C.
        top_k: Among how many of the highest scores the target must be.
        average: ``"micro"`` counts all classes together, ``"macro"`` averages them (absent and ignored ones left out),
            ``"weighted"`` weighs them by their targets, ``"none"`` or None gives one value each, shape ``(C,)``.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        zero_division: The value of a class without targets and predictions, 0 or 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MulticlassF1Score
        >>> preds = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8]])
        >>> target = torch.tensor([0, 1, 0, 2])
        >>> metric = MulticlassF1Score(num_classes=3)
        >>> metric(preds, target)
        tensor(0.7778)
    """

    def __init__(
        self,
        num_classes: int,
        top_k: int = 1,
        average: Average = "macro",
        multidim_average: MultidimAverage = "global",
        ignore_index: int | None = None,
        validate_args: bool = True,
        zero_division: float = 0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, top_k, multidim_average, ignore_index, validate_args, **options)
        check_average(average)
        self.average = average
        check_choice("zero_division", zero_division, (0, 1))
        self.zero_division = float(zero_division)

    def compute(self) -> Tensor:
        """Return the F1 score, shape ``()``, without average ``(C,)``; samplewise with a first dimension N."""
        counts = self._counts()
        if self.average == "micro":
            return _f1(counts.over_classes(), self.zero_division)
        present = without(counts.actual + counts.predicted > 0, self.ignore_index)
        return averaged(_f1(counts, self.zero_division), self.average, counts.actual, present)


class MultilabelF1Score(ThresholdCounts, F1Score):
    """F1 score of a multilabel task.

    Args:
        num_labels: The number of labels L.
        threshold: The probability above which a score means 1.
        average: ``"micro"`` counts all labels together, ``"macro"`` averages them, ``"weighted"`` weighs them by their
            targets, ``"none"`` or None gives one value each, shape ``(L,)``.
        multidim_average: ``"global"``, or ``"samplewise"`` for one value per sample (a first dimension N).
        ignore_index: Targets of this value do not count.
        validate_args: Whether batches are checked: shapes at once, values as ``validate`` says.
        zero_division: The value of a class without targets and predictions, 0 or 1.
        input: What float ``preds`` are: ``"probs"``, ``"logits"``, or ``"auto"``: logits if anything since the reset
            lies outside of 0 to 1.
        **options: See `Metric`.

    Raises:
        MetricValueError: If an argument or a batch is not allowed.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MultilabelF1Score
        >>> preds = torch.tensor([[0.9, 0.2], [0.3, 0.8], [0.7, 0.6]])
        >>> target = torch.tensor([[1, 0], [0, 1], [0, 1]])
        >>> metric = MultilabelF1Score(num_labels=2)
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
        zero_division: float = 0,
        *,
        input: Input = "auto",
        **options: Any,
    ) -> None:
        super().__init__(num_labels, threshold, multidim_average, ignore_index, validate_args, input, **options)
        check_average(average)
        self.average = average
        check_choice("zero_division", zero_division, (0, 1))
        self.zero_division = float(zero_division)

    def compute(self) -> Tensor:
        """Return the F1 score, shape ``()``, without average ``(L,)``; samplewise with a first dimension N."""
        counts = self._counts()
        if self.average == "micro":
            return _f1(counts.over_classes(), self.zero_division)
        return averaged(_f1(counts, self.zero_division), self.average, counts.actual)
