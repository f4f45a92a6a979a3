# SPDX-License-Identifier: Apache-2.0
"""Where a run stands: one flat record of counters, and its form in the reference's checkpoint keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Progress:
    """Counters of one fit.

    Several count the same thing at different moments, because a hook may save in between: a batch is *processed*
    when its step
    is done, *reported* when its hooks and its log row are, *completed* when the validation that was due after it is.

    Attributes:
        epoch: Epochs completed: the number of the current epoch.
        epochs_started: Epochs whose start hooks ran.
        epochs_processed: Epochs whose batches are all done.
        batch: Batches processed in the current epoch: the position in the data.
        batches_before: Batches processed in the epoch before.
        batch_completed: Batches completed in the current epoch.
        reported_at: ``batches`` when hooks and log row were done last.
        batches: Batches processed in the whole run.
        global_step: Optimiser steps of the whole run, summed over optimisers.
        windows: Batches that ended with an optimiser step: the x axis that loggers get.
        zero_grads: How often gradients were cleared.
        scheduler_steps: How often a scheduler was stepped.
        val_batches: Validation batches processed in the whole run.
        is_last_batch: Whether the current batch is the last of its epoch.
        cut: Whether the epoch was left with batches to come, because enough steps were done or a stop was asked for.
        validated_at: ``batches`` at the last validation inside fit, so that a resumed run does not repeat it.
    """

    epoch: int = 0
    epochs_started: int = 0
    epochs_processed: int = 0
    batch: int = 0
    batches_before: int = 0
    batch_completed: int = 0
    batches: int = 0
    global_step: int = 0
    windows: int = 0
    zero_grads: int = 0
    scheduler_steps: int = 0
    val_batches: int = 0
    is_last_batch: bool = False
    reported_at: int = 0
    cut: bool = False
    validated_at: int = -1

    @property
    def batches_shown(self) -> int:
        """Batches of the current epoch; those of the last one until the next begins."""
        return self.batch if self.epochs_started > self.epoch else self.batches_before

    def state_dict(self) -> dict[str, int | bool]:
        """Return the counters as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over counters; names of other versions are ignored."""
        for field in fields(self):
            if field.name in state:
                setattr(self, field.name, state[field.name])


def _counts(value: int, *, ready: int | None = None, completed: int | None = None) -> dict[str, int]:
    return {
        "ready": value if ready is None else ready,
        "completed": value if completed is None else completed,
        "started": value,
        "processed": value,
    }


def _pair(value: int) -> dict[str, int]:
    return {"ready": value, "completed": value}


def _triple(value: int) -> dict[str, int]:
    return {"ready": value, "completed": value, "started": value}


def to_reference(p: Progress, *, automatic: bool, epoch_start_steps: int = 0) -> dict[str, Any]:
    """Return the counters under the reference's ``loops`` keys.

    Args:
        p: The counters.
        automatic: Whether the module uses automatic optimisation: it decides which entry holds the optimiser steps.
        epoch_start_steps: ``p.global_step`` when the current epoch began.
    """
    steps = p.global_step if automatic else 0
    manual = 0 if automatic else p.global_step
    lag = p.batches - p.reported_at
    current = _counts(p.batches_shown, completed=p.batches_shown - lag)
    total = _counts(p.batches, completed=p.batches - lag)
    epoch = {"ready": p.epochs_started, "started": p.epochs_started}
    epoch |= {"processed": p.epochs_processed, "completed": p.epoch}
    step_current = _pair(max(0, steps - epoch_start_steps))
    fit = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": p.windows},
        "epoch_loop.batch_progress": {"total": total, "current": current, "is_last_batch": p.is_last_batch},
        "epoch_loop.scheduler_progress": {"total": _pair(p.scheduler_steps), "current": _pair(p.scheduler_steps)},
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": {"total": _pair(steps), "current": step_current},
                "zero_grad": {"total": _triple(p.zero_grads), "current": _triple(p.zero_grads)},
            }
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": {"total": _pair(manual), "current": _pair(manual)},
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {
            "total": _counts(p.val_batches),
            "current": _counts(0),
            "is_last_batch": False,
        },
        "epoch_progress": {"total": dict(epoch), "current": dict(epoch)},
    }

    def evaluation() -> dict[str, Any]:
        progress: dict[str, Any] = {"total": _counts(0), "current": _counts(0)}
        return {"state_dict": {}, "batch_progress": progress}

    loops: dict[str, Any] = {"fit_loop": fit}
    for name in ("validate_loop", "test_loop"):
        loops[name] = evaluation()
        loops[name]["batch_progress"]["is_last_batch"] = False
    loops["predict_loop"] = evaluation()
    return loops


def from_reference(loops: dict[str, Any]) -> Progress:
    """Read the counters from the reference's ``loops`` keys, as another writer of such files left them."""
    fit = loops.get("fit_loop", {})

    def counts(key: str, which: str, *path: str) -> dict[str, int]:
        entry = fit.get(key, {})
        for part in path:
            entry = entry.get(part, {})
        found: dict[str, int] = entry.get(which, {})
        return found

    batch, total = counts("epoch_loop.batch_progress", "current"), counts("epoch_loop.batch_progress", "total")
    epoch = counts("epoch_progress", "current")
    automatic = "epoch_loop.automatic_optimization.optim_progress"
    steps = counts(automatic, "total", "optimizer", "step").get("completed", 0)
    manual = counts("epoch_loop.manual_optimization.optim_step_progress", "total").get("completed", 0)
    progress = Progress(
        epoch=epoch.get("completed", 0),
        epochs_started=epoch.get("started", 0),
        epochs_processed=epoch.get("processed", 0),
        batch=batch.get("processed", 0),
        batch_completed=batch.get("completed", 0),
        batches=total.get("processed", 0),
        reported_at=total.get("completed", 0),
        global_step=steps + manual,
        windows=fit.get("epoch_loop.state_dict", {}).get("_batches_that_stepped", steps + manual),
        zero_grads=counts(automatic, "total", "optimizer", "zero_grad").get("completed", 0),
        scheduler_steps=counts("epoch_loop.scheduler_progress", "total").get("completed", 0),
        val_batches=counts("epoch_loop.val_loop.batch_progress", "total").get("processed", 0),
        is_last_batch=bool(fit.get("epoch_loop.batch_progress", {}).get("is_last_batch", False)),
    )
    progress.cut = progress.epochs_processed > progress.epoch and progress.batch > 0 and not progress.is_last_batch
    if progress.batch_completed == progress.batch:
        progress.validated_at = progress.batches
    return progress
