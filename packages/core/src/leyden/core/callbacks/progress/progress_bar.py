# SPDX-License-Identifier: Apache-2.0
"""The base class of progress bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from leyden.core.callback import Callback
from leyden.core.errors import PossibleUserWarning, warn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

REFRESH_SECONDS = 0.2  # between two drawings: the numbers wait for the device, and no eye reads faster


class ProgressBar(Callback):
    """Base class of progress bars: what the trainer prints goes through it.

    Examples:
        >>> from leyden.core.callbacks import ProgressBar
        >>> class Dots(ProgressBar):
        ...     def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        ...         print(".", end="")
    """

    observer = True

    # on the class, for subclasses that do not call `super().__init__`
    _trainer: Trainer | None = None
    _current_eval_dataloader_idx: int | None = None
    _enabled = True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_trainer": None}

    @property
    def sanity_check_description(self) -> str:
        """Title of the validation ahead of training."""
        return "Sanity Checking"

    @property
    def train_description(self) -> str:
        """Title of training."""
        return "Training"

    @property
    def validation_description(self) -> str:
        """Title of validation."""
        return "Validation"

    @property
    def test_description(self) -> str:
        """Title of testing."""
        return "Testing"

    @property
    def predict_description(self) -> str:
        """Title of prediction."""
        return "Predicting"

    @property
    def trainer(self) -> Trainer:
        """The trainer, once a run has begun.

        Raises:
            TypeError: No run has begun.
        """
        if self._trainer is None:
            raise TypeError(f"The `{type(self).__name__}._trainer` reference has not been set yet.")
        return self._trainer

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        """Whether nothing is shown."""
        return not self.is_enabled

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress from now on."""
        self._enabled = True

    # -- how much there is to do ---------------------------------------------------------------------------------------

    @property
    def total_train_batches(self) -> int | float:
        """Batches of the training epoch, or those that are left of ``max_steps``; infinite if unknown."""
        trainer = self.trainer
        if trainer.max_epochs == -1 and trainer.max_steps > 0:
            return min(trainer.num_training_batches, trainer.max_steps - trainer.global_step)
        return trainer.num_training_batches

    @property
    def total_val_batches(self) -> int | float:
        """Validation batches of all loaders in this epoch; 0 if it has no validation."""
        every = self.trainer.flags.check_val_every_n_epoch
        due = every is None or (self.trainer.current_epoch + 1) % every == 0
        return sum(self.trainer.num_val_batches) if due else 0

    @property
    def total_val_batches_current_dataloader(self) -> int | float:
        """Validation batches of the running loader; infinite if unknown."""
        return self._of_current("num_sanity_val_batches" if self.trainer.sanity_checking else "num_val_batches")

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """Test batches of the running loader; infinite if unknown."""
        return self._of_current("num_test_batches")

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Prediction batches of the running loader; infinite if unknown."""
        return self._of_current("num_predict_batches")

    def _of_current(self, name: str) -> int | float:
        counts: list[int | float] = getattr(self.trainer, name, [])
        index = self._current_eval_dataloader_idx or 0
        return counts[index] if index < len(counts) else float("inf")

    def has_dataloader_changed(self, dataloader_idx: int) -> bool:
        """Tell whether another evaluation loader runs than at the last call."""
        before, self._current_eval_dataloader_idx = self._current_eval_dataloader_idx, dataloader_idx
        return before != dataloader_idx

    def reset_dataloader_idx_tracker(self) -> None:
        """Forget which evaluation loader ran."""
        self._current_eval_dataloader_idx = None

    # -- what is shown -------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn the trainer; only its first process shows progress."""
        self._trainer = trainer
        if not trainer.is_global_zero:
            self.disable()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without tearing the bar."""
        print(*args, **kwargs)  # noqa: T201

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what the bar shows beside the progress: the version of the run, and what was logged for it."""
        shown: dict[str, int | str | float | dict[str, float]] = {}
        version = trainer.loggers[0].version if trainer.loggers else None
        if version not in ("", None):
            # a service's run id is long, and its end tells runs apart
            shown["v_num"] = version[-4:] if isinstance(version, str) else version
        logged = trainer.progress_bar_metrics
        if double := sorted(shown.keys() & logged.keys()):
            warn(
                "LY-B004",
                f"The progress bar already tracks a metric with the name(s) '{', '.join(double)}' and"
                f" `self.log('{double[0]}', ..., prog_bar=True)` will overwrite this value. Choose another name, or"
                " override `get_metrics()` in the progress bar callback.",
                PossibleUserWarning,
            )
        shown.update(logged)
        return shown


def print_line(trainer: Trainer, shown: dict[str, Any], seconds: float) -> None:
    """Print what stands for the bar of an epoch where there is no terminal."""
    values = "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())
    print(f"Epoch {trainer.current_epoch}: {seconds:.1f} s  {values}".rstrip(), file=sys.stderr)  # noqa: T201
