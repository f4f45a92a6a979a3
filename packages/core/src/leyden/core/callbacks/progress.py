# SPDX-License-Identifier: Apache-2.0
"""Progress on the terminal: a bar where there is one, a line per epoch where there is none."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from leyden.core.callback import Callback

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

REFRESH_SECONDS = 0.2


class ProgressBar(Callback):
    """Base class of progress bars: what the trainer prints goes through it."""

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
    device. Where the output is no terminal, each training epoch prints one line instead.

    Args:
        refresh_rate: Batches between two looks at the clock; 0 shows nothing.
        process_position: Lines to leave free above.
        leave: Whether each epoch's bar stays on the screen.

    Example:
        >>> from leyden.core.callbacks import TQDMProgressBar
        >>> TQDMProgressBar(refresh_rate=10).refresh_rate
        10
    """

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        self.refresh_rate, self.process_position, self.leave = refresh_rate, process_position, leave
        self._bar: Any = None
        self._drawn = 0.0
        self._terminal = True
        self._began = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bar": None}

    def _open(self, total: int | float | None, text: str, *, leave: bool) -> None:
        self._terminal = sys.stderr.isatty()
        self._drawn = self._began = time.monotonic()
        if self.refresh_rate and self._terminal:
            size = None if total is None or total == float("inf") else int(total)
            self._bar = tqdm(
                total=size, desc=text, leave=leave, dynamic_ncols=True, file=sys.stderr, position=self.process_position
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _advance(self, trainer: Trainer, pl_module: LightningModule, count: int, *, last: bool) -> None:
        if self._bar is None or (not last and count % self.refresh_rate):
            return
        now = time.monotonic()
        if not last and now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        self._bar.n = count
        self._bar.set_postfix({k: _short(v) for k, v in self.get_metrics(trainer, pl_module).items()}, refresh=False)
        self._bar.refresh()

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is not None:
            self._bar.write(sep.join(map(str, args)), file=sys.stdout)
        else:
            print(*args, sep=sep, **kwargs)  # noqa: T201

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of an epoch."""
        self._close()
        self._open(trainer.num_training_batches, f"Epoch {trainer.current_epoch}", leave=self.leave)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._advance(trainer, pl_module, batch_idx + 1, last=trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of an epoch, or print its line."""
        if self.refresh_rate and not self._terminal:
            shown = self.get_metrics(trainer, pl_module)
            values = "  ".join(f"{k}={_short(v)}" for k, v in shown.items())
            seconds = time.monotonic() - self._began
            print(f"Epoch {trainer.current_epoch}: {seconds:.1f} s  {values}".rstrip(), file=sys.stderr)  # noqa: T201
        elif self._bar is not None:
            self._bar.set_postfix({k: _short(v) for k, v in self.get_metrics(trainer, pl_module).items()})
        self._close()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of a test."""
        self._open(None, "Testing", leave=True)

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
        self._advance(trainer, pl_module, batch_idx + 1, last=False)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of a test."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self._close()


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
