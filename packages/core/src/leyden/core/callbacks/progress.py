# SPDX-License-Identifier: Apache-2.0
"""Progress on the terminal: a bar where there is one, a line per epoch where there is none."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationValueError
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

REFRESH_SECONDS = 0.2


class ProgressBar(Callback):
    """Base class of progress bars: what the trainer prints goes through it.

    Examples:
        >>> from leyden.core.callbacks import ProgressBar
        >>> class Dots(ProgressBar):
        ...     def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        ...         print(".", end="")
    """

    observer = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without tearing the bar."""
        print(*args, **kwargs)  # noqa: T201

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float]:
        """Return what the bar shows beside the progress."""
        shown: dict[str, int | str | float] = {}
        if trainer.loggers and trainer.loggers[0].version is not None:
            shown["v_num"] = trainer.loggers[0].version
        shown.update(trainer.progress_bar_metrics)
        return shown


class TQDMProgressBar(ProgressBar):
    """A tqdm bar per training epoch and per evaluation.

    The bar is drawn a few times a second, whatever the number of batches, since reading the numbers waits for the
    device. Where the output is no terminal, each training epoch prints one line instead. Validation within training has
    no bar of its own.

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

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        if refresh_rate < 0:
            raise MisconfigurationValueError(f"`refresh_rate` must be 0 (no bar) or more; got {refresh_rate!r}.")
        self.refresh_rate, self.process_position, self.leave = refresh_rate, process_position, leave
        self._bar: Any = None
        self._count = 0
        self._drawn = 0.0
        self._began: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_bar": None}

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is None:
            print(*args, sep=sep, **kwargs)  # noqa: T201
        else:
            self._bar.write(
                sep.join(map(str, args)), file=kwargs.get("file") or sys.stdout, end=kwargs.get("end", "\n")
            )

    # -- the bar -------------------------------------------------------------------------------------------------------

    def _open(self, total: float | None, text: str, *, leave: bool) -> None:
        self._close()
        self._drawn = self._began = time.monotonic()
        self._count = 0
        if self.refresh_rate and sys.stderr.isatty():
            from tqdm.auto import tqdm

            size = None if total is None or total == float("inf") else int(total)
            self._bar = tqdm(
                total=size, desc=text, leave=leave, dynamic_ncols=True, file=sys.stderr, position=self.process_position
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._began = None, None

    def _advance(self, trainer: Trainer, pl_module: LightningModule, count: int, *, last: bool = False) -> None:
        self._count = count
        if self._bar is None or (not last and count % self.refresh_rate):
            return
        now = time.monotonic()
        if not last and now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.n = self._count
        self._bar.set_postfix({k: _short(v) for k, v in self.get_metrics(trainer, pl_module).items()}, refresh=False)
        self._bar.refresh()

    # -- training ------------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of an epoch."""
        self._open(trainer.num_training_batches, f"Epoch {trainer.current_epoch}", leave=self.leave)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self._began is None:  # a run that goes on in the middle of an epoch does not start it again
            self.on_train_epoch_start(trainer, pl_module)
        if self._bar is not None:
            self._advance(trainer, pl_module, batch_idx + 1, last=trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of an epoch, or print its line."""
        if self._bar is not None:
            self._draw(trainer, pl_module)
        elif self.refresh_rate and self._began is not None and not sys.stderr.isatty():
            shown = self.get_metrics(trainer, pl_module)
            values = "  ".join(f"{k}={_short(v)}" for k, v in shown.items())
            seconds = time.monotonic() - self._began
            print(f"Epoch {trainer.current_epoch}: {seconds:.1f} s  {values}".rstrip(), file=sys.stderr)  # noqa: T201
        self._close()

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _begin_evaluation(self, trainer: Trainer, text: str) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._open(None, text, leave=True)

    def _advance_evaluation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None and trainer.state.fn != TrainerFn.FITTING:
            self._advance(trainer, pl_module, self._count + 1)

    def _end_evaluation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            if self._bar is not None:
                self._draw(trainer, pl_module)
            self._close()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of ``trainer.validate``."""
        self._begin_evaluation(trainer, "Validation")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of ``trainer.test``."""
        self._begin_evaluation(trainer, "Testing")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of ``trainer.predict``."""
        self._begin_evaluation(trainer, "Predicting")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance_evaluation(trainer, pl_module)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance_evaluation(trainer, pl_module)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance_evaluation(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of ``trainer.validate``."""
        self._end_evaluation(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of ``trainer.test``."""
        self._end_evaluation(trainer, pl_module)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of ``trainer.predict``."""
        self._end_evaluation(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self._close()


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
