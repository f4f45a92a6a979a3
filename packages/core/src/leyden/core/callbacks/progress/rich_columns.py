# SPDX-License-Identifier: Apache-2.0
"""The columns of a rich progress bar; imported with the first bar, since rich is an extra."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from leyden.core.callbacks.progress.rich_progress import RichProgressBarTheme


class BatchesColumn(ProgressColumn):
    """Batches that are done, of how many."""

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return the text of one bar."""
        return Text(f"{int(task.completed)}/{'--' if task.total is None else int(task.total)}", style=self._style)


class TimeColumn(ProgressColumn):
    """Time that is gone, and that is left."""

    max_refresh = 0.5  # the seconds jitter if they are redrawn more often

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return the text of one bar."""
        gone = task.finished_time if task.finished else task.elapsed
        return Text(f"{_clock(gone)} • {_clock(task.time_remaining)}", style=self._style)


class SpeedColumn(ProgressColumn):
    """Batches per second."""

    def __init__(self, style: str) -> None:
        self._style = style
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return the text of one bar."""
        return Text(f"{task.speed or 0:.2f}it/s", style=self._style)


class MetricsColumn(ProgressColumn):
    """The values beside a bar that has some.

    Attributes:
        metrics: The values, by the bar they stand beside.
    """

    def __init__(self, theme: RichProgressBarTheme) -> None:
        self._theme = theme
        self.metrics: dict[int, dict[str, Any]] = {}
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return the text of one bar."""
        values = self.metrics.get(task.id, {})
        parts = [f"{name}: {self._format(value)}" for name, value in values.items()]
        return Text(self._theme.metrics_text_delimiter.join(parts), style=self._theme.metrics)

    def _format(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        try:
            return format(value, self._theme.metrics_format)
        except (TypeError, ValueError):
            return str(value)


def columns(theme: RichProgressBarTheme) -> list[ProgressColumn]:
    """Return the columns of a bar, but for its values."""
    return [
        TextColumn("[progress.description]{task.description}"),
        BarColumn(
            complete_style=theme.progress_bar,
            finished_style=theme.progress_bar_finished,
            pulse_style=theme.progress_bar_pulse,
        ),
        BatchesColumn(theme.batch_progress),
        TimeColumn(theme.time),
        SpeedColumn(theme.processing_speed),
    ]


def _clock(seconds: float | None) -> str:
    return "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))
