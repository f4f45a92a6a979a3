# SPDX-License-Identifier: Apache-2.0
"""Metrics for PyTorch: stateful, distributed, right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.metrics import classification as classification
    from leyden.metrics import functional as functional
    from leyden.metrics.aggregation import MaxMetric as MaxMetric
    from leyden.metrics.aggregation import MeanMetric as MeanMetric
    from leyden.metrics.aggregation import MinMetric as MinMetric
    from leyden.metrics.aggregation import SumMetric as SumMetric
    from leyden.metrics.classification.accuracy import Accuracy as Accuracy
    from leyden.metrics.classification.accuracy import BinaryAccuracy as BinaryAccuracy
    from leyden.metrics.classification.accuracy import MulticlassAccuracy as MulticlassAccuracy
    from leyden.metrics.classification.accuracy import MultilabelAccuracy as MultilabelAccuracy
    from leyden.metrics.classification.confusion_matrix import BinaryConfusionMatrix as BinaryConfusionMatrix
    from leyden.metrics.classification.confusion_matrix import ConfusionMatrix as ConfusionMatrix
    from leyden.metrics.classification.confusion_matrix import MulticlassConfusionMatrix as MulticlassConfusionMatrix
    from leyden.metrics.classification.confusion_matrix import MultilabelConfusionMatrix as MultilabelConfusionMatrix
    from leyden.metrics.classification.f_score import BinaryF1Score as BinaryF1Score
    from leyden.metrics.classification.f_score import F1Score as F1Score
    from leyden.metrics.classification.f_score import MulticlassF1Score as MulticlassF1Score
    from leyden.metrics.classification.f_score import MultilabelF1Score as MultilabelF1Score
    from leyden.metrics.collection import MetricCollection as MetricCollection
    from leyden.metrics.errors import MetricError as MetricError
    from leyden.metrics.errors import MetricTypeError as MetricTypeError
    from leyden.metrics.errors import MetricValueError as MetricValueError
    from leyden.metrics.errors import MetricWarning as MetricWarning
    from leyden.metrics.errors import MissingExtraError as MissingExtraError
    from leyden.metrics.metric import CompositionalMetric as CompositionalMetric
    from leyden.metrics.metric import Metric as Metric
    from leyden.metrics.states import StateSpec as StateSpec
    from leyden.metrics.sync import PlanMismatchError as PlanMismatchError

    __version__: str
else:
    _HOMES = {
        "Accuracy": "leyden.metrics.classification.accuracy",
        "BinaryAccuracy": "leyden.metrics.classification.accuracy",
        "BinaryConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "BinaryF1Score": "leyden.metrics.classification.f_score",
        "CompositionalMetric": "leyden.metrics.metric",
        "ConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "F1Score": "leyden.metrics.classification.f_score",
        "MaxMetric": "leyden.metrics.aggregation",
        "MeanMetric": "leyden.metrics.aggregation",
        "Metric": "leyden.metrics.metric",
        "MetricCollection": "leyden.metrics.collection",
        "MetricError": "leyden.metrics.errors",
        "MetricTypeError": "leyden.metrics.errors",
        "MetricValueError": "leyden.metrics.errors",
        "MetricWarning": "leyden.metrics.errors",
        "MinMetric": "leyden.metrics.aggregation",
        "MissingExtraError": "leyden.metrics.errors",
        "MulticlassAccuracy": "leyden.metrics.classification.accuracy",
        "MulticlassConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "MulticlassF1Score": "leyden.metrics.classification.f_score",
        "MultilabelAccuracy": "leyden.metrics.classification.accuracy",
        "MultilabelConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "MultilabelF1Score": "leyden.metrics.classification.f_score",
        "PlanMismatchError": "leyden.metrics.sync",
        "StateSpec": "leyden.metrics.states",
        "SumMetric": "leyden.metrics.aggregation",
        "classification": "leyden.metrics.classification",
        "functional": "leyden.metrics.functional",
    }

    def __getattr__(name):
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            return version("leyden-metrics")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(_HOMES[name])
        value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})


__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryConfusionMatrix",
    "BinaryF1Score",
    "CompositionalMetric",
    "ConfusionMatrix",
    "F1Score",
    "MaxMetric",
    "MeanMetric",
    "Metric",
    "MetricCollection",
    "MetricError",
    "MetricTypeError",
    "MetricValueError",
    "MetricWarning",
    "MinMetric",
    "MissingExtraError",
    "MulticlassAccuracy",
    "MulticlassConfusionMatrix",
    "MulticlassF1Score",
    "MultilabelAccuracy",
    "MultilabelConfusionMatrix",
    "MultilabelF1Score",
    "PlanMismatchError",
    "StateSpec",
    "SumMetric",
    "classification",
    "functional",
]
