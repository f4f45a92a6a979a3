# SPDX-License-Identifier: Apache-2.0
"""A tqdm bar where there is a terminal, a line per epoch where there is none."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from leyden.core.callbacks.progress.progress_bar import REFRESH_SECONDS, ProgressBar, print_line
from leyden.core.errors import MisconfigurationValueError
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.callbacks.progress.tqdm_bar import Tqdm
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

_BARS = ("train", "val", "test", "predict")


class TQDMProgressBar(ProgressBar):
    """A tqdm bar for training, for validation below it while it runs, and for each other verb.

    The bar is drawn a few times a second, whatever the number of batches, since reading the numbers waits for the
    device. Where the output is no terminal, each training epoch prints one line instead. Override one of the
    ``init_..._tqdm`` methods for a bar that looks otherwise.

    Args:
        refresh_rate: Batches between two looks at the clock; 0 shows nothing.
        process_position: Lines to leave free above.
        leave: Whether each epoch's bar stays on the screen.

    Raises:
        MisconfigurationValueError: ``refresh_rate`` is negative.

    Examples:
        >>> from leyden.core.callbacks import TQDMProgressBar
        >>> TQDMProgressBar(refresh_rate=10).refresh_rate
        10
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        if refresh_rate < 0:
            raise MisconfigurationValueError(f"`refresh_rate` must be 0 (no bar) or more; got {refresh_rate!r}.")
        self._refresh_rate, self._process_position, self._leave = refresh_rate, process_position, leave
        self._bars: dict[str, Tqdm | None] = dict.fromkeys(_BARS)
        self._drawn = 0.0
        self._began: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_bars": dict.fromkeys(_BARS)}

    @property
    def refresh_rate(self) -> int:
        """Batches between two looks at the clock."""
        return self._refresh_rate

    @property
    def process_position(self) -> int:
        """Lines left free above."""
        return self._process_position

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._enabled and self._refresh_rate > 0

    def _bar(self, name: str) -> Tqdm:
        bar = self._bars[name]
        if bar is None:
            raise TypeError(f"The `{type(self).__name__}._{name}_progress_bar` reference has not been set yet.")
        return bar

    @property
    def train_progress_bar(self) -> Tqdm:
        """The bar of training.

        Raises:
            TypeError: There is none yet.
        """
        return self._bar("train")

    @train_progress_bar.setter
    def train_progress_bar(self, bar: Tqdm) -> None:
        self._bars["train"] = bar

    @property
    def val_progress_bar(self) -> Tqdm:
        """The bar of validation.

        Raises:
            TypeError: There is none yet.
        """
        return self._bar("val")

    @val_progress_bar.setter
    def val_progress_bar(self, bar: Tqdm) -> None:
        self._bars["val"] = bar

    @property
    def test_progress_bar(self) -> Tqdm:
        """The bar of testing.

        Raises:
            TypeError: There is none yet.
        """
        return self._bar("test")

    @test_progress_bar.setter
    def test_progress_bar(self, bar: Tqdm) -> None:
        self._bars["test"] = bar

    @property
    def predict_progress_bar(self) -> Tqdm:
        """The bar of prediction.

        Raises:
            TypeError: There is none yet.
        """
        return self._bar("predict")

    @predict_progress_bar.setter
    def predict_progress_bar(self, bar: Tqdm) -> None:
        self._bars["predict"] = bar

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar."""
        bar = next((bar for bar in self._bars.values() if bar is not None and not bar.disable), None)
        if bar is None:
            print(*args, sep=sep, **kwargs)  # noqa: T201
        else:
            bar.write(sep.join(map(str, args)), file=kwargs.get("file") or sys.stdout, end=kwargs.get("end", "\n"))

    # -- making bars ---------------------------------------------------------------------------------------------------

    def _make(self, title: str, *, leave: bool, below: bool = False) -> Tqdm:
        from leyden.core.callbacks.progress.tqdm_bar import Tqdm

        return Tqdm(
            desc=title,
            position=2 * self._process_position + below,
            disable=self.is_disabled or not sys.stderr.isatty(),
            leave=leave,
            dynamic_ncols=True,
            file=sys.stderr,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def init_sanity_tqdm(self) -> Tqdm:
        """Return the bar of the validation ahead of training."""
        return self._make(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar of training."""
        return self._make(self.train_description, leave=True)

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar of validation; inside a fit it stands below the bar of training, and goes."""
        inside = self.trainer.state.fn != TrainerFn.VALIDATING
        return self._make(self.validation_description, leave=not inside, below=inside)

    def init_test_tqdm(self) -> Tqdm:
        """Return the bar of testing."""
        return self._make(self.test_description, leave=True)

    def init_predict_tqdm(self) -> Tqdm:
        """Return the bar of prediction."""
        return self._make(self.predict_description, leave=True)

    # -- moving bars ---------------------------------------------------------------------------------------------------

    def _begin(self, bar: Tqdm, total: float, title: str) -> None:
        bar.set_description(title, refresh=False)
        bar.total = None if total == float("inf") else total
        bar.reset()
        self._drawn = time.monotonic()

    def _due(self, bar: Tqdm, count: int) -> bool:
        if count == bar.total:
            return True
        if count % self._refresh_rate:
            return False
        now = time.monotonic()
        if now - self._drawn < REFRESH_SECONDS:
            return False
        self._drawn = now
        return True

    def _close(self, name: str) -> None:
        if (bar := self._bars[name]) is not None:
            bar.close()
        self._bars[name] = None

    # -- training ------------------------------------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of the validation ahead of training."""
        self.val_progress_bar = self.init_sanity_tqdm()

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of the validation ahead of training."""
        self._close("val")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the bar of training."""
        self.train_progress_bar = self.init_train_tqdm()
        self._began = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        if self._bars["train"] is None:
            self.train_progress_bar = self.init_train_tqdm()
        self._began = time.monotonic()
        self._begin(self.train_progress_bar, self.total_train_batches, f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self._began is None:  # a run that goes on in the middle of an epoch does not start it again
            self.on_train_epoch_start(trainer, pl_module)
        bar: Tqdm = self._bars["train"]  # type: ignore[assignment]
        if not bar.disable:
            bar.n = batch_idx + 1
            if self._due(bar, batch_idx + 1):
                self._show_values(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch: with its values in the bar, or with a line."""
        bar = self.train_progress_bar
        if not bar.disable:
            self._show_values(trainer, pl_module)
        elif self.is_enabled and self._began is not None and not sys.stderr.isatty():
            print_line(trainer, self.get_metrics(trainer, pl_module), time.monotonic() - self._began)
        if self._leave:
            self._close("train")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of training."""
        self._close("train")

    def _show_values(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _begin_loader(self, name: str, total: float, title: str, dataloader_idx: int) -> None:
        self._begin(self._bar(name), total, f"{title} DataLoader {dataloader_idx}")

    def _advance(self, name: str, count: int) -> None:
        bar = self._bars[name]
        if bar is not None and not bar.disable:
            bar.n = count
            if self._due(bar, count):
                bar.refresh()

    def _end(self, name: str) -> None:
        # the last batch of data without a length is nobody's total
        if (bar := self._bars[name]) is not None and not bar.disable:
            bar.refresh()
        self._close(name)
        self.reset_dataloader_idx_tracker()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the bar of validation."""
        if not trainer.sanity_checking:
            self.val_progress_bar = self.init_validation_tqdm()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            title = self.sanity_check_description if trainer.sanity_checking else self.validation_description
            self._begin_loader("val", self.total_val_batches_current_dataloader, title, dataloader_idx)

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
        self._advance("val", batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of validation, and show its values in the bar of training."""
        if trainer.sanity_checking:
            self.reset_dataloader_idx_tracker()
            return
        self._end("val")
        if self._bars["train"] is not None and not self.train_progress_bar.disable:
            self._show_values(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the bar of testing."""
        self.test_progress_bar = self.init_test_tqdm()

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_test_batches_current_dataloader
            self._begin_loader("test", total, self.test_description, dataloader_idx)

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
        self._advance("test", batch_idx + 1)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of testing."""
        self._end("test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the bar of prediction."""
        self.predict_progress_bar = self.init_predict_tqdm()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin a loader."""
        if self.has_dataloader_changed(dataloader_idx):
            total = self.total_predict_batches_current_dataloader
            self._begin_loader("predict", total, self.predict_description, dataloader_idx)

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
        self._advance("predict", batch_idx + 1)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of prediction."""
        self._end("predict")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        for name in _BARS:
            self._close(name)
