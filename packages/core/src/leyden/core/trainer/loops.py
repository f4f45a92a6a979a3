# SPDX-License-Identifier: Apache-2.0
"""The trainer's loops as user code reads them: views on the counters and the flags, which hold nothing themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.core.progress import Progress, to_reference
from leyden.core.states import RunningStage, TrainerFn

if TYPE_CHECKING:
    from leyden.core.trainer.readings import Readings

# hooks during which the batch that is worked on is not counted as processed yet
_IN_STEP = (
    *("on_train_batch_start", "training_step", "training_step_end", "on_before_backward", "backward"),
    *("on_after_backward", "on_before_zero_grad", "optimizer_zero_grad", "on_before_optimizer_step"),
    *("configure_gradient_clipping", "optimizer_step"),
)
_EPOCHS = {"ready": "epochs_started", "started": "epochs_started", "processed": "epochs_processed"}


class Counts:
    """How many were made ready, started, processed and completed.

    Attributes:
        ready: Those that exist.
        started: Those whose start hooks ran.
        processed: Those whose work is done.
        completed: Those whose end hooks ran too.
    """

    def __init__(self, ready: int, started: int, processed: int, completed: int) -> None:
        self.ready, self.started, self.processed, self.completed = ready, started, processed, completed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Counts({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


class EpochCounts:
    """The counters of epochs. They can be set, as scripts that go on from other formats do."""

    def __init__(self, progress: Progress) -> None:
        object.__setattr__(self, "_progress", progress)

    def __getattr__(self, name: str) -> int:
        if name not in ("ready", "started", "processed", "completed"):
            raise AttributeError(f"epochs are counted as ready, started, processed and completed; not {name!r}")
        value: int = getattr(self._progress, _EPOCHS.get(name, "epoch"))
        return value

    def __setattr__(self, name: str, value: int) -> None:
        setattr(self._progress, _EPOCHS.get(name, "epoch"), value)


class Counted:
    """Counters of the whole run and of its current part.

    Attributes:
        total: Over the whole run.
        current: Of the current epoch.
        is_last_batch: Whether the current batch is the last one; False for what is no batch.
    """

    def __init__(self, total: Any, current: Any, is_last_batch: bool = False) -> None:
        self.total, self.current, self.is_last_batch = total, current, is_last_batch


class _View:
    def __init__(self, trainer: Readings) -> None:
        self._trainer = trainer

    @property
    def _progress(self) -> Progress:
        return self._trainer._progress


class EpochLoop(_View):
    """The batches of an epoch: ``trainer.fit_loop.epoch_loop``."""

    @property
    def min_steps(self) -> int | None:
        """Optimiser steps before which a stop is not heeded."""
        return self._trainer.flags.min_steps

    @min_steps.setter
    def min_steps(self, value: int | None) -> None:
        self._trainer.flags.min_steps = value

    @property
    def max_steps(self) -> int:
        """Optimiser steps to train; -1 for no limit."""
        return self._trainer.flags.max_steps

    @max_steps.setter
    def max_steps(self, value: int) -> None:
        self._trainer.flags.max_steps = value

    @property
    def global_step(self) -> int:
        """Optimiser steps taken so far, over all epochs."""
        return self._progress.global_step

    @property
    def _batches_that_stepped(self) -> int:
        return self._progress.windows

    @_batches_that_stepped.setter
    def _batches_that_stepped(self, value: int) -> None:
        self._progress.windows = value

    @property
    def _open(self) -> int:
        session = self._trainer._session
        hook = session.book.hook if session is not None else None
        return int(self._trainer.state.stage == RunningStage.TRAINING and hook in _IN_STEP)

    @property
    def batch_progress(self) -> Counted:
        """The batches of the run and of the current epoch, as they are now."""
        p, running = self._progress, self._open
        lag = p.batches - p.reported_at
        total = Counts(p.batches + running, p.batches + running, p.batches, p.batches - lag)
        batch = p.batches_shown
        current = Counts(batch + running, batch + running, batch, batch - lag)
        return Counted(total, current, p.is_last_batch)

    @property
    def batch_idx(self) -> int:
        """Number of the current batch in its epoch, from 0; -1 before the first."""
        return self._progress.batches_shown + self._open - 1

    @property
    def total_batch_idx(self) -> int:
        """Number of the current batch in the run, from 0; -1 before the first."""
        return self._progress.batches + self._open - 1

    @property
    def val_loop(self) -> EvaluationLoop:
        """The validation inside of training."""
        return EvaluationLoop(self._trainer, TrainerFn.FITTING, "val")

    def state_dict(self) -> dict[str, Any]:
        """Return the counters by the keys of a checkpoint."""
        fit, start = self._trainer.fit_loop.state_dict(), "epoch_loop."
        return {key.removeprefix(start): value for key, value in fit.items() if key.startswith(start)}


class FitLoop(_View):
    """The epochs of a fit: ``trainer.fit_loop``.

    Examples:
        >>> import leyden.core as L
        >>> trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False)
        >>> trainer.fit_loop.max_epochs = 3
        >>> trainer.max_epochs, trainer.fit_loop.epoch_progress.current.completed
        (3, 0)
    """

    @property
    def max_epochs(self) -> int | None:
        """Epochs to train. Setting it before another ``fit`` of the same module lets it go on."""
        return self._trainer.flags.max_epochs

    @max_epochs.setter
    def max_epochs(self, value: int | None) -> None:
        self._trainer.flags.max_epochs = value

    @property
    def min_epochs(self) -> int | None:
        """Epochs before which a stop is not heeded."""
        return self._trainer.flags.min_epochs

    @min_epochs.setter
    def min_epochs(self, value: int | None) -> None:
        self._trainer.flags.min_epochs = value

    @property
    def max_steps(self) -> int:
        """Optimiser steps to train; ``epoch_loop.max_steps`` sets it."""
        return self._trainer.flags.max_steps

    @property
    def min_steps(self) -> int | None:
        """Optimiser steps before which a stop is not heeded; ``epoch_loop.min_steps`` sets it."""
        return self._trainer.flags.min_steps

    @property
    def epoch_loop(self) -> EpochLoop:
        """The batches of an epoch."""
        return EpochLoop(self._trainer)

    @property
    def epoch_progress(self) -> Counted:
        """The epochs of the run."""
        return Counted(EpochCounts(self._progress), EpochCounts(self._progress))

    @property
    def batch_idx(self) -> int:
        """Number of the current batch in its epoch, from 0."""
        return self.epoch_loop.batch_idx

    @property
    def total_batch_idx(self) -> int:
        """Number of the current batch in the run, from 0."""
        return self.epoch_loop.total_batch_idx

    @property
    def max_batches(self) -> float | int:
        """Batches of an epoch; infinite if unknown."""
        return self._trainer.num_training_batches

    def state_dict(self) -> dict[str, Any]:
        """Return the counters by the keys of a checkpoint."""
        session, module = self._trainer._session, self._trainer._module
        loops = to_reference(
            self._progress,
            automatic=module is None or module.automatic_optimization,
            epoch_start_steps=session.epoch_start_steps if session is not None else 0,
        )
        fit: dict[str, Any] = loops["fit_loop"]
        return fit


class EvaluationLoop(_View):
    """A pass over evaluation or prediction loaders: ``trainer.validate_loop`` and its like.

    Args:
        trainer: The trainer.
        fn: The verb that the loop belongs to.
        kind: ``"val"``, ``"test"`` or ``"predict"``.
    """

    def __init__(self, trainer: Readings, fn: TrainerFn, kind: str) -> None:
        super().__init__(trainer)
        self._fn, self._kind = fn, kind

    @property
    def inference_mode(self) -> bool:
        """Whether `torch.inference_mode` is used; validation inside of training never does."""
        return self._fn != TrainerFn.FITTING and self._trainer.flags.inference_mode

    @property
    def max_batches(self) -> list[float | int]:
        """Batches of each loader; infinite where unknown."""
        if self._fn == TrainerFn.FITTING and self._trainer.sanity_checking:
            return self._trainer.num_sanity_val_batches
        counts: list[float | int] = getattr(self._trainer, f"num_{self._kind}_batches")
        return counts

    @property
    def epoch_batch_indices(self) -> list[list[list[int] | None]]:
        """Prediction: per loader, the places in the data set of each batch's samples, if a callback wants them."""
        session = self._trainer._session
        return [] if session is None else session.predicted_indices

    @property
    def current_batch_indices(self) -> list[int]:
        """Prediction: the places in the data set of the running batch's samples; empty where they are not known."""
        loaders = [batches for batches in self.epoch_batch_indices if batches]
        return (loaders[-1][-1] or []) if loaders else []

    @property
    def num_dataloaders(self) -> int:
        """How many loaders there are."""
        return len(self.max_batches)
