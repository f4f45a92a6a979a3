# SPDX-License-Identifier: Apache-2.0
"""Callbacks that come with the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.callback import Callback as Callback
    from leyden.core.callbacks.accumulation import GradientAccumulationScheduler as GradientAccumulationScheduler
    from leyden.core.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from leyden.core.callbacks.exception_checkpoint import OnExceptionCheckpoint as OnExceptionCheckpoint
    from leyden.core.callbacks.finetuning import BackboneFinetuning as BackboneFinetuning
    from leyden.core.callbacks.finetuning import BaseFinetuning as BaseFinetuning
    from leyden.core.callbacks.lambda_function import LambdaCallback as LambdaCallback
    from leyden.core.callbacks.lr_monitor import LearningRateMonitor as LearningRateMonitor
    from leyden.core.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from leyden.core.callbacks.prediction_writer import BasePredictionWriter as BasePredictionWriter
    from leyden.core.callbacks.progress.progress_bar import ProgressBar as ProgressBar
    from leyden.core.callbacks.progress.rich_progress import RichProgressBar as RichProgressBar
    from leyden.core.callbacks.progress.tqdm_progress import TQDMProgressBar as TQDMProgressBar
    from leyden.core.callbacks.rich_summary import RichModelSummary as RichModelSummary
    from leyden.core.callbacks.summary import ModelSummary as ModelSummary
    from leyden.core.callbacks.timer import Timer as Timer
    from leyden.core.callbacks.weight_averaging import EMAWeightAveraging as EMAWeightAveraging
    from leyden.core.callbacks.weight_averaging import WeightAveraging as WeightAveraging
else:
    _LAZY = {
        "BackboneFinetuning": "leyden.core.callbacks.finetuning",
        "BaseFinetuning": "leyden.core.callbacks.finetuning",
        "BasePredictionWriter": "leyden.core.callbacks.prediction_writer",
        "Callback": "leyden.core.callback",
        "EMAWeightAveraging": "leyden.core.callbacks.weight_averaging",
        "EarlyStopping": "leyden.core.callbacks.early_stopping",
        "GradientAccumulationScheduler": "leyden.core.callbacks.accumulation",
        "LambdaCallback": "leyden.core.callbacks.lambda_function",
        "LearningRateMonitor": "leyden.core.callbacks.lr_monitor",
        "ModelCheckpoint": "leyden.core.callbacks.model_checkpoint",
        "ModelSummary": "leyden.core.callbacks.summary",
        "OnExceptionCheckpoint": "leyden.core.callbacks.exception_checkpoint",
        "ProgressBar": "leyden.core.callbacks.progress.progress_bar",
        "RichModelSummary": "leyden.core.callbacks.rich_summary",
        "RichProgressBar": "leyden.core.callbacks.progress.rich_progress",
        "TQDMProgressBar": "leyden.core.callbacks.progress.tqdm_progress",
        "Timer": "leyden.core.callbacks.timer",
        "WeightAveraging": "leyden.core.callbacks.weight_averaging",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "BackboneFinetuning",
    "BaseFinetuning",
    "BasePredictionWriter",
    "Callback",
    "EMAWeightAveraging",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "LambdaCallback",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "OnExceptionCheckpoint",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "Timer",
    "WeightAveraging",
]
