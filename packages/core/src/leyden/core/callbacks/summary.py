# SPDX-License-Identifier: Apache-2.0
"""ModelSummary: what the model is made of, before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationValueError
from leyden.core.model_summary import format_summary
from leyden.core.model_summary import summarize as summary_of

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class ModelSummary(Callback):
    """Prints the layers of the model with their parameters, sizes and operations when a fit begins.

    Override `summarize` to show it in another way.

    Args:
        max_depth: How deep into nested modules to go; -1 for all the way, 0 prints nothing.
        **summarize_kwargs: More arguments for `summarize`.

    Raises:
        MisconfigurationValueError: ``max_depth`` is below -1.

    Examples:
        >>> from leyden.core.callbacks import ModelSummary
        >>> ModelSummary(max_depth=2).max_depth
        2
    """

    observer = True

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        if not isinstance(max_depth, int) or max_depth < -1:
            raise MisconfigurationValueError(f"`max_depth` can be -1, 0 or > 0, got {max_depth!r}.")
        self._max_depth, self._summarize_kwargs = max_depth, summarize_kwargs

    @property
    def max_depth(self) -> int:
        """How deep into nested modules the summary goes."""
        return self._max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        if not self._max_depth:
            return
        summary = summary_of(pl_module, self._max_depth)
        if trainer.is_global_zero:
            self.summarize(
                summary.columns(),
                summary.total_parameters,
                summary.trainable_parameters,
                summary.model_size,
                summary.total_training_modes,
                total_flops=summary.total_flops,
                **self._summarize_kwargs,
            )

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Show the summary.

        Args:
            summary_data: Columns of the table: a title and the text of every row.
            total_parameters: Parameters of the model.
            trainable_parameters: Those of them that need gradients.
            model_size: Megabytes that they take.
            total_training_modes: How many submodules are in the modes ``"train"`` and ``"eval"``.
            total_flops: Operations of one forward pass on the example input.
            **summarize_kwargs: What the callback was given beside its depth.
        """
        totals = total_parameters, trainable_parameters, model_size, total_training_modes, total_flops
        print(format_summary(summary_data, *totals))  # noqa: T201
