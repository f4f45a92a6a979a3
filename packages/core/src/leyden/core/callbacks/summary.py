# SPDX-License-Identifier: Apache-2.0
"""ModelSummary: what the model is made of, before it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationValueError
from leyden.core.table import render

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class ModelSummary(Callback):
    """Prints the layers of the model with their numbers of parameters when a fit begins.

    Args:
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for the totals only.

    Raises:
        MisconfigurationValueError: ``max_depth`` is below -1.

    Examples:
        >>> from leyden.core.callbacks import ModelSummary
        >>> ModelSummary(max_depth=2).max_depth
        2
    """

    observer = True

    def __init__(self, max_depth: int = 1) -> None:
        if not isinstance(max_depth, int) or max_depth < -1:
            raise MisconfigurationValueError(f"`max_depth` must be -1, 0, or more; got {max_depth!r}.")
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        trainer.print(summarize(pl_module, self.max_depth))


def summarize(module: nn.Module, max_depth: int = 1) -> str:
    """Return a table of a module's layers.

    A parameter that several layers share counts once in the totals; one that is not made yet (a lazy layer) counts as
    nothing and is marked by a plus sign.

    Args:
        module: Any module.
        max_depth: How deep into nested modules to go; -1 for all the way, 0 for the totals only.

    Examples:
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
            rows.append((name, type(layer).__name__, _count(layer.parameters())))
    parameters = list(module.parameters())
    trainable = _count(p for p in parameters if p.requires_grad)
    size = sum(p.numel() * p.element_size() for p in parameters if not is_lazy(p)) / 1e6
    totals = f"{_count(parameters)} parameters ({trainable} trainable), {size:.3f} MB"
    return f"{render(('name', 'type', 'params'), rows)}\n{totals}" if rows else totals


def _count(parameters: Iterable[Tensor]) -> str:
    found = list(parameters)
    return f"{sum(p.numel() for p in found if not is_lazy(p)):,}{'+' if any(map(is_lazy, found)) else ''}"
