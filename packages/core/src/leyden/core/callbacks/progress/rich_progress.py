# SPDX-License-Identifier: Apache-2.0
"""A progress bar in colour, drawn by rich."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from leyden.core.callbacks.progress.progress_bar import REFRESH_SECONDS, ProgressBar, print_line
from leyden.core.errors import MissingExtraError
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, Task, TaskID

    from leyden.core.callbacks.progress.rich_columns import MetricsColumn
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


@dataclass(frozen=True)
class RichProgressBarTheme:
    """Styles of a rich progress bar, as rich writes them: ``"bold red"``, ``"#6206E0"``.

    Args:
        description: Style of the title.
        progress_bar: Style of the part of the bar that is done.
        progress_bar_finished: Style of a bar that is full.
        progress_bar_pulse: Style of a bar without an end.
        batch_progress: Style of the number of batches.
        time: Style of the time.
        processing_speed: Style of the batches per second.
        metrics: Style of the values.
        metrics_text_delimiter: What stands between two values.
        metrics_format: Format of a value, as `format` takes it.

    Examples:
        >>> from leyden.core.callbacks.progress.rich_progress import RichProgressBarTheme
        >>> RichProgressBarTheme(metrics_format=".1e").metrics_text_delimiter
        ' '
    """

    description: str = ""
    progress_bar: str = "#6206E0"
    progress_bar_finished: str = "#6206E0"
    progress_bar_pulse: str = "#6206E0"
    batch_progress: str = ""
    time: str = "dim"
    processing_speed: str = "dim underline"
    metrics: str = "italic"
    metrics_text_delimiter: str = " "
    metrics_format: str = ".3f"


class RichProgressBar(ProgressBar):
    """A bar by rich for training, for validation below it while it runs, and for each other verb.

    The bar is drawn a few times a second at most, by the training thread itself; where the output is no terminal, each
    training epoch prints one line instead. Override `configure_columns` for other columns.

    Args:
        refresh_rate: Most drawings per second; 0 shows nothing.
        leave: Whether each epoch's bar stays on the screen.
        theme: The styles.
        console_kwargs: Arguments of the `rich.console.Console` that is drawn on.

    Raises:
        MissingExtraError: rich is not installed.

    Attributes:
        progress: Rich's progress display, while it is shown.
        theme: The styles.

    Examples:
        >>> from leyden.core.callbacks import RichProgressBar
        >>> RichProgressBar(refresh_rate=2).is_enabled
        True
    """

    def __init__(
        self,
        refresh_rate: int = 100,
        leave: bool = False,
        theme: RichProgressBarTheme | None = None,
        console_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if find_spec("rich") is None:
            raise MissingExtraError(
                "`RichProgressBar` requires `rich`, which is not installed: pip install 'leyden-core[rich]'",
                name="rich",
            )
        self.theme = theme or RichProgressBarTheme()
        self._refresh_rate, self._leave, self._console_kwargs = refresh_rate, leave, console_kwargs or {}
        self.progress: Progress | None = None
        self._values: MetricsColumn | None = None
        self._ids: dict[str, TaskID] = {}
        self._drawn = 0.0
        self._began: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "progress": None, "_values": None, "_ids": {}}

    @property
    def refresh_rate(self) -> int:
        """Most drawings per second."""
        return self._refresh_rate

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._enabled and self._refresh_rate > 0

    @property
    def train_progress_bar(self) -> Task:
        """The bar of training."""
        return self._task("train")

    @property
    def val_sanity_check_bar(self) -> Task:
        """The bar of the validation ahead of training."""
        return self._task("sanity")

    @property
    def val_progress_bar(self) -> Task:
        """The bar of validation."""
        return self._task("val")

    @property
    def test_progress_bar(self) -> Task:
        """The bar of testing."""
        return self._task("test")

    @property
    def predict_progress_bar(self) -> Task:
        """The bar of prediction."""
        return self._task("predict")

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Return the columns from left to right; the values come after them."""
        from leyden.core.callbacks.progress.rich_columns import columns

        return columns(self.theme)

    # -- the display ---------------------------------------------------------------------------------------------------

    def _open(self, trainer: Trainer) -> None:
        if self.progress is not None or self.is_disabled:
            return
        from rich.console import Console
        from rich.progress import Progress

        from leyden.core.callbacks.progress.rich_columns import MetricsColumn

        console = Console(**{"stderr": True, **self._console_kwargs})
        if not (console.is_terminal or console.is_jupyter):
            return
        self._values = MetricsColumn(self.theme)
        # drawn where the batches end: a thread of its own would take the interpreter from the training
        self.progress = Progress(
            *self.configure_columns(trainer),
            self._values,
            console=console,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self.progress.start()

    def _close(self) -> None:
        progress, self.progress, self._ids = self.progress, None, {}
        if progress is not None:
            progress.stop()

    def _task(self, name: str) -> Task:
        if self.progress is None or name not in self._ids:
            raise TypeError(f"`{type(self).__name__}` shows no bar of {name} now.")
        return next(task for task in self.progress.tasks if task.id == self._ids[name])

    def _begin(self, name: str, total: float, title: str) -> None:
        if self.progress is None:
            return
        text = f"[{self.theme.description}]{title}" if self.theme.description else title
        size = None if total == float("inf") else total
        if name in self._ids:
            self.progress.reset(self._ids[name], total=size, description=text, visible=True)
        else:
            self._ids[name] = self.progress.add_task(text, total=size)
        self._draw()

    def _hide(self, name: str) -> None:
        if self.progress is not None and name in self._ids:
            self.progress.update(self._ids[name], visible=False)
            self._draw()

    def _advance(self, name: str, count: int) -> bool:
        """Move a bar; tells whether it is time to draw it."""
        if self.progress is None or name not in self._ids:
            return False
        self.progress.update(self._ids[name], completed=count)
        task = self._task(name)
        return count == task.total or time.monotonic() - self._drawn > max(REFRESH_SECONDS, 1 / self._refresh_rate)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self.progress is not None:
            self.progress.refresh()

    def _show_values(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._values is not None and "train" in self._ids:
            self._values.metrics[self._ids["train"]] = self.get_metrics(trainer, pl_module)
            self._draw()

    # -- training ------------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the display."""
        self._open(trainer)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide the bar of the validation ahead of training."""
        self._hide("sanity")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the display."""
        self._open(trainer)
        self._began = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of an epoch."""
        if self._leave and "train" in self._ids:
            self._close()
            self._open(trainer)
        self._began = time.monotonic()
        last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs - 1}"
        # as wide as the title of validation, so that the bars begin in one column
        title = f"Epoch {trainer.current_epoch}{last}".ljust(len(self.validation_description))
        self._begin("train", self.total_train_batches, title)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self._began is None:  # a run that goes on in the middle of an epoch does not start it again
            self.on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self._advance("train", batch_idx + 1):
            self._show_values(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch: with its values beside the bar, or with a line."""
        if self.progress is not None:
            self._show_values(trainer, pl_module)
        elif self.is_enabled and self._began is not None:
            print_line(trainer, self.get_metrics(trainer, pl_module), time.monotonic() - self._began)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the display."""
        self._close()

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _advance_evaluation(self, name: str, batch_idx: int) -> None:
        if self._advance(name, batch_idx + 1):
            self._draw()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the display."""
        self._open(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin the bar of a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_val_batches_current_dataloader
            if trainer.sanity_checking:
                self._begin("sanity", total, self.sanity_check_description)
            else:
                self._begin("val", total, self.validation_description)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the bar."""
        self._advance_evaluation("sanity" if trainer.sanity_checking else "val", batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide the bar inside a fit, and end the display otherwise."""
        self.reset_dataloader_idx_tracker()
        if trainer.state.fn != TrainerFn.FITTING:
            self._close()
        elif not trainer.sanity_checking:
            self._hide("val")
            self._show_values(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the display."""
        self._open(trainer)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin the bar of a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            self._begin("test", self.total_test_batches_current_dataloader, self.test_description)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the bar."""
        self._advance_evaluation("test", batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the display."""
        self.reset_dataloader_idx_tracker()
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the display."""
        self._open(trainer)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin the bar of a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            self._begin("predict", self.total_predict_batches_current_dataloader, self.predict_description)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the bar."""
        self._advance_evaluation("predict", batch_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the display."""
        self.reset_dataloader_idx_tracker()
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the display."""
        self._close()
