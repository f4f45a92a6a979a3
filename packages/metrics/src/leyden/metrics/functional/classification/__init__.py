# SPDX-License-Identifier: Apache-2.0
"""Classification in one call: no state, one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.metrics.functional.classification._accuracy import accuracy as accuracy
    from leyden.metrics.functional.classification._accuracy import binary_accuracy as binary_accuracy
    from leyden.metrics.functional.classification._accuracy import multiclass_accuracy as multiclass_accuracy
    from leyden.metrics.functional.classification._accuracy import multilabel_accuracy as multilabel_accuracy
    from leyden.metrics.functional.classification._confusion_matrix import (
        binary_confusion_matrix as binary_confusion_matrix,
    )
    from leyden.metrics.functional.classification._confusion_matrix import confusion_matrix as confusion_matrix
    from leyden.metrics.functional.classification._confusion_matrix import (
        multiclass_confusion_matrix as multiclass_confusion_matrix,
    )
    from leyden.metrics.functional.classification._confusion_matrix import (
        multilabel_confusion_matrix as multilabel_confusion_matrix,
    )
    from leyden.metrics.functional.classification._f_score import binary_f1_score as binary_f1_score
    from leyden.metrics.functional.classification._f_score import f1_score as f1_score
    from leyden.metrics.functional.classification._f_score import multiclass_f1_score as multiclass_f1_score
    from leyden.metrics.functional.classification._f_score import multilabel_f1_score as multilabel_f1_score
else:
    _HOMES = {
        "accuracy": "leyden.metrics.functional.classification._accuracy",
        "binary_accuracy": "leyden.metrics.functional.classification._accuracy",
        "binary_confusion_matrix": "leyden.metrics.functional.classification._confusion_matrix",
        "binary_f1_score": "leyden.metrics.functional.classification._f_score",
        "confusion_matrix": "leyden.metrics.functional.classification._confusion_matrix",
        "f1_score": "leyden.metrics.functional.classification._f_score",
        "multiclass_accuracy": "leyden.metrics.functional.classification._accuracy",
        "multiclass_confusion_matrix": "leyden.metrics.functional.classification._confusion_matrix",
        "multiclass_f1_score": "leyden.metrics.functional.classification._f_score",
        "multilabel_accuracy": "leyden.metrics.functional.classification._accuracy",
        "multilabel_confusion_matrix": "leyden.metrics.functional.classification._confusion_matrix",
        "multilabel_f1_score": "leyden.metrics.functional.classification._f_score",
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
    "accuracy",
    "binary_accuracy",
    "binary_confusion_matrix",
    "binary_f1_score",
    "confusion_matrix",
    "f1_score",
    "multiclass_accuracy",
    "multiclass_confusion_matrix",
    "multiclass_f1_score",
    "multilabel_accuracy",
    "multilabel_confusion_matrix",
    "multilabel_f1_score",
]
