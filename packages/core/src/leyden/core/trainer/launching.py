# SPDX-License-Identifier: Apache-2.0
"""Where a verb runs: in this process, or in those that the strategy starts, whose results come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leyden.core.errors import MisconfigurationException
from leyden.core.launch.rank import busy
from leyden.core.logbook.results import Results
from leyden.core.states import TrainerFn, TrainerState
from leyden.core.transfer import move_to_device

if TYPE_CHECKING:
    from leyden.core.trainer.trainer import Trainer


@dataclass
class Brought:
    """What the first of several processes brings back to the one that started them.

    Attributes:
        result: What the verb returned.
        weights: The module's state.
        state: What the trainer did last, and how it ended.
        progress: The counters of the fit.
        run_id: The name of the run.
        callbacks: The attributes of each callback.
        values: What was logged: for monitors, loggers and bar.
        should_stop: Whether the training was told to stop.
    """

    result: Any
    weights: dict[str, Any]
    state: TrainerState
    progress: dict[str, Any]
    run_id: str
    callbacks: list[dict[str, Any]]
    values: dict[str, Any]
    should_stop: bool


def launch(trainer: Trainer, fn: TrainerFn, model: Any, datamodule: Any, /, *args: Any, **options: Any) -> Any:
    """Run a verb where the strategy wants it.

    With a launcher that runs the program again this does not return: the program goes on in its processes.

    Args:
        trainer: The trainer.
        fn: The verb.
        model: The module.
        datamodule: The data module, or None.
        *args: Loaders and checkpoint, as `Trainer._do` takes them.
        **options: Options of the verb.
    """
    launcher = trainer.strategy.launcher
    if launcher is None:
        with busy():
            return trainer._do(fn, model, datamodule, *args, **options)
    brought = launcher.launch(in_process, trainer, fn, model, datamodule, *args, **options)
    take_over(trainer, brought, fn, model, datamodule)
    return brought.result


def in_process(trainer: Trainer, fn: TrainerFn, model: Any, datamodule: Any, *args: Any, **options: Any) -> Any:
    """Run a verb in a process that was started for it; the first one brings back what came of it."""
    strategy = trainer.strategy
    strategy.started()
    result = trainer._do(fn, model, datamodule, *args, **options)
    session = trainer._session
    assert session is not None
    if not strategy.is_global_zero:
        return None
    return Brought(
        move_to_device(result, "cpu"),
        {name: move_to_device(value, "cpu") for name, value in model.state_dict().items()},
        trainer.state,
        session.progress.state_dict(),
        trainer._run_id,
        [_attributes(callback) for callback in trainer.callbacks],
        session.book.state_dict(Results()),
        trainer.should_stop,
    )


def _attributes(callback: Any) -> dict[str, Any]:
    state = callback.__getstate__()
    return {name: value for name, value in state.items() if name not in ("log", "log_dict")}


def take_over(trainer: Trainer, brought: Brought, fn: TrainerFn, model: Any, datamodule: Any) -> None:
    """Make the trainer and the module what they became in the process that did the work."""
    session = trainer._wire(model, datamodule, fn)
    model.load_state_dict(brought.weights)
    trainer.state, trainer._run_id, trainer.should_stop = brought.state, brought.run_id, brought.should_stop
    session.progress.load_state_dict(brought.progress)
    for callback, attributes in zip(trainer.callbacks, brought.callbacks, strict=True):
        callback.__dict__.update(attributes)
    session.book.load_state_dict(brought.values, Results())
    session.release()


def refuse_to_stream(trainer: Trainer) -> None:
    """Refuse to give outputs one by one where they would be made in other processes.

    Raises:
        MisconfigurationException: The strategy starts processes and hands back what they return at their end.
    """
    if trainer.strategy.launcher is not None:
        raise MisconfigurationException(
            "`predict_iter` gives outputs in the process that makes them, and here that is none yet: run the script"
            " under torchrun, or use `predict`, which brings all outputs back."
        )
