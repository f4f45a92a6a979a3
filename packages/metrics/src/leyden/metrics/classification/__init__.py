# SPDX-License-Identifier: Apache-2.0
"""Classification: binary, multiclass and multilabel tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
else:
    _HOMES = {
        "Accuracy": "leyden.metrics.classification.accuracy",
        "BinaryAccuracy": "leyden.metrics.classification.accuracy",
        "BinaryConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "BinaryF1Score": "leyden.metrics.classification.f_score",
        "ConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "F1Score": "leyden.metrics.classification.f_score",
        "MulticlassAccuracy": "leyden.metrics.classification.accuracy",
        "MulticlassConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "MulticlassF1Score": "leyden.metrics.classification.f_score",
        "MultilabelAccuracy": "leyden.metrics.classification.accuracy",
        "MultilabelConfusionMatrix": "leyden.metrics.classification.confusion_matrix",
        "MultilabelF1Score": "leyden.metrics.classification.f_score",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})


__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryConfusionMatrix",
    "BinaryF1Score",
    "ConfusionMatrix",
    "F1Score",
    "MulticlassAccuracy",
    "MulticlassConfusionMatrix",
    "MulticlassF1Score",
    "MultilabelAccuracy",
    "MultilabelConfusionMatrix",
    "MultilabelF1Score",
]
