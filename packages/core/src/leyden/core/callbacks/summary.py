# SPDX-License-Identifier: Apache-2.0
"""ModelSummary: what the model is made of, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from leyden.core.callback import Callback
from leyden.core.table import render

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class ModelSummary(Callback):
    """Prints the layers of the model with their numbers of parameters when a fit begins.

    Args:
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for the totals only.
    """

    observer = True

    def __init__(self, max_depth: int = 1) -> None:
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        trainer.print(summarize(pl_module, self.max_depth))


def summarize(module: nn.Module, max_depth: int = 1) -> str:
    """Return a table of a module's layers.

    Args:
        module: Any module.
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for the totals only.

    Example:
        >>> from torch import nn
        >>> from leyden.core.callbacks.summary import summarize
        >>> print(summarize(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
        name | type   | params
        -----+--------+-------
        0    | Linear | 9
        1    | ReLU   | 0
        9 parameters (9 trainable), 0.000 MB
    """
    rows = []
    for name, layer in module.named_modules():
        depth = name.count(".") + 1
        if name and (max_depth == -1 or depth <= max_depth):
            rows.append((name, type(layer).__name__, _grouped(_count(layer))))
    unique = {id(p): p for p in module.parameters()}.values()
    total = sum(_size(p) for p in unique)
    trainable = sum(_size(p) for p in unique if p.requires_grad)
    size = sum(_size(p) * p.element_size() for p in unique) / 1e6
    totals = f"{_grouped(total)} parameters ({_grouped(trainable)} trainable), {size:.3f} MB"
    return f"{render(('name', 'type', 'params'), rows)}\n{totals}" if rows else totals


def _count(module: nn.Module) -> int:
    return sum(_size(p) for p in {id(p): p for p in module.parameters()}.values())


def _size(parameter: Any) -> int:
    # a lazy parameter has no size before the first forward
    return 0 if isinstance(parameter, nn.parameter.UninitializedParameter) else parameter.numel()


def _grouped(number: int) -> str:
    return f"{number:,}"
