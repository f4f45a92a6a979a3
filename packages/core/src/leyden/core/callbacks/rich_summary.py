# SPDX-License-Identifier: Apache-2.0
"""RichModelSummary: the summary of the model, in colour."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from leyden.core.callbacks.summary import ModelSummary
from leyden.core.errors import MissingExtraError
from leyden.core.model_summary import get_formatted_model_size, get_human_readable_count


class RichModelSummary(ModelSummary):
    """Prints the summary of the model as a table by rich; as plain text where there is no terminal.

    Args:
        max_depth: How deep into nested modules to go; -1 for all the way, 0 prints nothing.
        **summarize_kwargs: ``header_style``, the style of the titles, and ``console``, a `rich.console.Console`.

    Raises:
        MissingExtraError: rich is not installed.

    Examples:
        >>> from leyden.core.callbacks import RichModelSummary
        >>> RichModelSummary(header_style="bold").max_depth
        1
    """

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        if find_spec("rich") is None:
            raise MissingExtraError(
                "`RichModelSummary` requires `rich`, which is not installed: pip install 'leyden-core[rich]'",
                name="rich",
            )
        super().__init__(max_depth, **summarize_kwargs)

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
        """Show the summary; the arguments are those of `ModelSummary.summarize`."""
        from rich.console import Console
        from rich.table import Table

        console = summarize_kwargs.get("console") or Console()
        if not (console.is_terminal or console.is_jupyter):
            totals = total_parameters, trainable_parameters, model_size, total_training_modes, total_flops
            ModelSummary.summarize(summary_data, *totals)
            return
        table = Table(header_style=summarize_kwargs.get("header_style", "bold magenta"))
        for title, _ in summary_data:
            numeric = title in ("Params", "FLOPs", "In sizes", "Out sizes")
            table.add_column(title, justify="right" if numeric else "left", no_wrap=title == "Name")
        for row in zip(*(cells for _, cells in summary_data), strict=True):
            table.add_row(*row)
        console.print(table, markup=False)
        for text, value in (
            ("Trainable params", get_human_readable_count(trainable_parameters)),
            ("Non-trainable params", get_human_readable_count(total_parameters - trainable_parameters)),
            ("Total params", get_human_readable_count(total_parameters)),
            ("Total estimated model params size (MB)", get_formatted_model_size(model_size)),
            ("Modules in train mode", str(total_training_modes["train"])),
            ("Modules in eval mode", str(total_training_modes["eval"])),
            ("Total FLOPs", get_human_readable_count(total_flops)),
        ):
            console.print(f"[bold]{text}[/]: {value}", highlight=False)
