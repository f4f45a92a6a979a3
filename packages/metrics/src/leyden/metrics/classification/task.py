# SPDX-License-Identifier: Apache-2.0
"""Front doors: `Accuracy(task="multiclass", ...)` makes a `MulticlassAccuracy`, which is an `Accuracy`."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Mapping
from typing import Any

from leyden.metrics.classification.arguments import check_choice
from leyden.metrics.errors import MetricValueError
from leyden.metrics.metric import Metric

# Which of a front door's arguments each task takes; the others belong to other tasks.
_OF_TASK = {
    "binary": ("threshold",),
    "multiclass": ("num_classes", "top_k", "average"),
    "multilabel": ("num_labels", "threshold", "average"),
}


class TaskDoor(ABCMeta):
    """Calls ``_open`` of the class that defines it, and builds subclasses as usual."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build an instance, of the subclass that the arguments name if this class is a front door."""
        opened = cls.__dict__.get("_open")
        return opened.__func__(*args, **kwargs) if opened is not None else super().__call__(*args, **kwargs)


def of_task(
    classes: Mapping[str, Callable[..., Metric]], task: str, arguments: dict[str, Any], shared: dict[str, Any]
) -> Metric:
    """Build the class of a task.

    Args:
        classes: The class of each task.
        task: The task that was asked for.
        arguments: Arguments of which each task takes some.
        shared: Arguments that every task takes.

    Raises:
        MetricValueError: If the task is unknown, or the number of its classes or labels was not given.
    """
    check_choice("task", task, tuple(classes))
    chosen = {name: arguments[name] for name in _OF_TASK[task] if name in arguments}
    for name in ("num_classes", "num_labels"):
        if name in chosen and chosen[name] is None:
            raise MetricValueError(f"task={task!r} needs {name}; got None")
    return classes[task](**chosen, **shared)
