# SPDX-License-Identifier: Apache-2.0
"""Where ported code looks for the summary of a model."""

from __future__ import annotations

from leyden.core.model_summary import LayerSummary as LayerSummary
from leyden.core.model_summary import ModelSummary as ModelSummary
from leyden.core.model_summary import get_formatted_model_size as get_formatted_model_size
from leyden.core.model_summary import get_human_readable_count as get_human_readable_count
from leyden.core.model_summary import parse_batch_shape as parse_batch_shape
from leyden.core.model_summary import summarize as summarize

__all__ = [
    "LayerSummary",
    "ModelSummary",
    "get_formatted_model_size",
    "get_human_readable_count",
    "parse_batch_shape",
    "summarize",
]
