# SPDX-License-Identifier: Apache-2.0
"""The one way in which every functional form runs its metric."""

from __future__ import annotations

from torch import Tensor

from leyden.metrics.metric import Metric


def once(metric: Metric, preds: Tensor, target: Tensor) -> Tensor:
    """Return the value of one batch; it is the batch of this process alone, also where there are several."""
    metric.sync_on_compute = False
    metric.update(preds, target)
    value: Tensor = metric.compute()
    return value
