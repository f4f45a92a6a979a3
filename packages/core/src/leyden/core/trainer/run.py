# SPDX-License-Identifier: Apache-2.0
"""One call of a verb, from the first hook to the last: what happens in which order, also when something fails."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from leyden.core.callback import Callback
from leyden.core.checkpoint import sharded, state
from leyden.core.data.feed import Feed
from leyden.core.data.hooks import DataHooks
from leyden.core.errors import (
    CheckpointError,
    CheckpointWriteError,
    Interrupted,
    PossibleUserWarning,
    warn,
)
from leyden.core.gradient_checkpointing import keep, recompute
from leyden.core.hooks import overrides, replaces
from leyden.core.loops.after_batch import sanity_check
from leyden.core.loops.evaluate import evaluate
from leyden.core.loops.fit import fit, nothing_to_train
from leyden.core.loops.predict import predictions
from leyden.core.module import LightningModule
from leyden.core.optimizers import configured
from leyden.core.session import Session
from leyden.core.signals import AgreedStop
from leyden.core.states import RunningStage, TrainerFn, TrainerStatus
from leyden.core.strategies.batch_norm import synchronise
from leyden.core.trainer.configuration import log_configuration
from leyden.core.trainer.requirements import refuse_for_join, refuse_for_manual, validate_configuration
from leyden.core.trainer.resume import resolve
from leyden.core.transfer import move_to_device
from leyden.core.val_check import make_val_check


def run(
    s: Session, fn: TrainerFn, loaders: dict[str, Any], ckpt_path: Any, *, trust: bool = False, **options: Any
) -> Any:
    """Run a verb on a session.

    Args:
        s: The session, wired and not begun.
        fn: The verb.
        loaders: What the verb was given, by kind (``"train"``, ``"val"``, ``"test"``, ``"predict"``).
        ckpt_path: The checkpoint to load, as the verb was given it.
        trust: Whether a file that only code can rebuild may run that code.
        **options: ``verbose`` and ``return_predictions`` of the verbs that have them.
    """
    with opened(s, fn, loaders, ckpt_path, trust=trust) as checkpoint:
        if fn == TrainerFn.FITTING:
            prepare_fit(s, loaders, checkpoint)
            s.saves.beside = s.flags.async_save
            fit(s)
            s.stop.drain()
            s.saves.settle()
            s.saves.beside = False
            s.hooks.call("on_fit_end")
            return None
        if fn == TrainerFn.PREDICTING:
            return run_predict(s, loaders, options["return_predictions"])
        return run_evaluation(s, fn, loaders, options["verbose"])


@contextmanager
def opened(
    s: Session, fn: TrainerFn, loaders: dict[str, Any], ckpt_path: Any, *, trust: bool = False
) -> Generator[dict[str, Any] | None, None, None]:
    """Set a session up for a verb, and tear it down after it, also when something fails; gives the checkpoint."""
    trainer = s.trainer
    trainer.state.fn, trainer.state.status = fn, TrainerStatus.RUNNING
    begun, profiler, strategy = False, trainer._profiler, s.strategy
    status = "failed"
    try:
        validate_configuration(s, fn, loaders)
        join(s, fn)
        prepare_data(s)
        path = agreed_start(s, ckpt_path)
        begun = True
        if profiler is not None:
            profiler.watch(s.module)
            profiler.setup(stage=str(fn), local_rank=strategy.local_rank, log_dir=trainer.log_dir)
        setup(s, fn)
        later = state.IN_SHARDS if strategy.reads_shards else ()
        checkpoint = sharded.load(path, "cpu", strategy=strategy, later=later, trust=trust) if path else None
        trainer._ckpt_path = str(path) if path is not None else None
        place(s, checkpoint)
        s.module.zero_grad()
        with s.stop.listening():
            yield checkpoint
        trainer.state.status = TrainerStatus.FINISHED
        status = "success"
    except BaseException as error:
        trainer.state.status = TrainerStatus.INTERRUPTED
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, Interrupted, GeneratorExit)) else "failed"
        s.saves.beside = False
        if not isinstance(error, GeneratorExit):
            tell_exception(s, error)
        raise_as(error)
        raise
    finally:
        s.saves.close()
        trainer.state.stage = None
        torch.set_grad_enabled(True)
        teardown(s, fn, begun)
        finalize_loggers(s, status)
        keep(s.recomputed)
        strategy.teardown()
        if begun and profiler is not None:
            profiler.describe()
        s.release()


def raise_as(error: BaseException) -> None:
    """Turn a Ctrl-C into an exit with its code, except where a person sits at a prompt and wants the prompt back."""
    interactive = hasattr(sys, "ps1") or "IPython" in sys.modules
    if isinstance(error, KeyboardInterrupt) and not interactive:
        raise Interrupted(signal.SIGINT) from error
    if isinstance(error, Interrupted) and interactive and error.signum == signal.SIGINT:
        raise KeyboardInterrupt from error


def join(s: Session, fn: TrainerFn) -> None:
    """Take this process's device, and meet the other processes."""
    strategy = s.strategy
    strategy.setup_environment()
    s.device = strategy.root_device
    if strategy.world_size > 1 and fn == TrainerFn.FITTING:
        s.stop = AgreedStop(strategy.side_group, strategy.first_step_done)


def prepare_data(s: Session) -> None:
    """Call ``prepare_data`` of the data module and the module, in one process of each machine or of all."""
    strategy = s.strategy
    for owner in (s.datamodule, s.module):
        if owner is not None and replaces(owner, "prepare_data", DataHooks):
            rank = strategy.local_rank if getattr(owner, "prepare_data_per_node", True) else strategy.global_rank
            if rank == 0:
                s.hooks.scoped("prepare_data", owner.prepare_data)()
            strategy.barrier("prepare_data")


def agreed_start(s: Session, ckpt_path: Any) -> Path | None:
    """Return the checkpoint to go on from; the first process looks for it, and chooses the loggers' versions, for all.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    strategy, trainer = s.strategy, s.trainer
    path, versions = None, []
    if strategy.is_global_zero:
        path = resolve(s, ckpt_path)
        # all choose before one of them makes the folder of a version
        versions = [logger.version for logger in s.loggers]
    path, versions, trainer._run_id = strategy.broadcast((path, versions, trainer._run_id))
    if not strategy.is_global_zero:
        for logger, version in zip(s.loggers, versions, strict=True):
            if hasattr(logger, "adopt_version"):
                logger.adopt_version(version)
    return path


def place(s: Session, checkpoint: dict[str, Any] | None) -> None:
    """Bring the module to its devices, and a checkpoint into it."""
    strategy, module = s.strategy, s.module
    if s.trainer.sync_batchnorm and strategy.world_size > 1:
        synchronise(module, strategy.root_device)
    s.recomputed = recompute(module, s.flags.activation_checkpointing)
    if strategy.sharded:
        strategy.setup_module(module)
    else:
        strategy.module = module
    if checkpoint is not None:
        state.restore_model(s, checkpoint)
        state.restore_callbacks(s, checkpoint)
    if not strategy.sharded:
        strategy.setup_module(module)


def setup(s: Session, fn: TrainerFn) -> None:
    """Call ``setup`` of everybody, and ``configure_model``."""
    stage = str(fn)
    scoped = s.hooks.scoped
    if s.datamodule is not None:
        scoped("setup", s.datamodule.setup)(stage=stage)
    for callback in s.callbacks:
        if overrides(callback, "setup", Callback):
            own = s.observers.callback(callback, "setup", callback.setup)
            scoped("setup", own)(s.trainer, s.module, stage=stage)
    scoped("setup", s.module.setup)(stage=stage)
    if replaces(s.module, "configure_model", LightningModule):
        with s.strategy.model_sharded_context():
            scoped("configure_model", s.module.configure_model)()
    s.hooks.compile()
    s.strategy.barrier("setup")


def prepare_fit(s: Session, loaders: dict[str, Any], checkpoint: dict[str, Any] | None) -> None:
    """Make optimisers and feeds, restore the training state, and try validation out."""
    trainer, module = s.trainer, s.module
    trainer.state.stage = RunningStage.TRAINING
    s.train_source = s.source("train", loaders.get("train"))
    s.optimizers, s.schedulers, s.frequencies = s.hooks.scoped("configure_optimizers", lambda: configured(module))()
    refuse_for_manual(s)
    refuse_for_join(s)
    s.strategy.setup_training(s.optimizers, automatic=module.automatic_optimization)
    s.hooks.call("on_fit_start")
    log_configuration(s)
    if checkpoint is not None:
        state.restore_training(s, checkpoint)
    torch.set_grad_enabled(True)
    resting = sum(not part.training for part in module.modules())
    if resting:
        warn(
            "LY-T012",
            f"Found {resting} module(s) in eval mode at the start of training. This may lead to unexpected behavior"
            " during training. If this is intentional, you can ignore this warning.",
            PossibleUserWarning,
        )
    validates = overrides(module, "validation_step", LightningModule) and s.flags.limit_val_batches != 0
    source = s.source("val", loaders.get("val"))
    s.val_source = source if source.defined and validates else None
    if checkpoint is None:
        sanity_check(s)
    s.make_train_feed()
    feed = s.train_feed
    assert feed is not None
    feed.order.attach()
    if feed.available == 0 and s.flags.limit_train_batches != 0:
        raise nothing_to_train(feed.loader)
    if s.loggers and feed.length is not None and 0 < feed.length < s.flags.log_every_n_steps:
        say_interval(s, feed.length)
    if s.val_source is not None:
        every = s.flags.check_val_every_n_epoch
        s.val_check = make_val_check(s.flags.val_check_interval, every, feed.length, s.strategy.any_decision)
        if s.val_feeds is None and (every is None or (s.progress.epoch + 1) % every == 0):
            s.make_val_feeds()


def say_interval(s: Session, batches: int) -> None:
    """Warn that an epoch is too short for a row of step values."""
    if not s.flags.fast_dev_run:
        warn(
            "LY-T015",
            f"The number of training batches ({batches}) is smaller than the logging interval"
            f" Trainer(log_every_n_steps={s.flags.log_every_n_steps}). Set a lower value for log_every_n_steps if you"
            " want to see logs for the training epoch.",
            PossibleUserWarning,
        )


def run_evaluation(s: Session, fn: TrainerFn, loaders: dict[str, Any], verbose: bool) -> list[dict[str, float]]:
    """Validate or test, print the results, and return them as numbers."""
    stage, kind = ("validation", "val") if fn == TrainerFn.VALIDATING else ("test", "test")
    s.trainer.state.stage = RunningStage.VALIDATING if fn == TrainerFn.VALIDATING else RunningStage.TESTING
    flag = f"limit_{kind}_batches"
    feeds = s.other_feeds = s.feeds(s.source(kind, loaders.get(kind)), getattr(s.flags, flag), flag)
    s.trainer._take(kind, feeds)
    if getattr(s.flags, flag) == 0:
        return []
    rows = evaluate(s, stage, feeds, inference_mode=s.flags.inference_mode)
    results = [{name: float(value) for name, value in row.items()} for row in rows]
    if verbose:
        s.trainer._print_results(results, str(fn), [feed.name for feed in feeds])
    return results


def predict_feeds(s: Session, loaders: dict[str, Any]) -> list[Feed]:
    """Return the feeds of a prediction."""
    s.trainer.state.stage = RunningStage.PREDICTING
    source = s.source("predict", loaders.get("predict"))
    feeds = s.other_feeds = s.feeds(source, s.flags.limit_predict_batches, "limit_predict_batches")
    s.trainer._take("predict", feeds)
    return feeds


def run_predict(s: Session, loaders: dict[str, Any], keep: bool) -> Any:
    """Predict, and return the outputs as the reference shapes them: a list, or one list per loader."""
    feeds = predict_feeds(s, loaders)
    if s.flags.limit_predict_batches == 0:
        return None
    kept: list[list[Any]] = [[] for _ in feeds]
    for index, output in predictions(s, feeds):
        if keep:
            kept[index].append(move_to_device(output, "cpu"))
    if not keep:
        return None
    return kept[0] if len(kept) == 1 else kept


def stream_predictions(
    s: Session, loaders: dict[str, Any], ckpt_path: Any, *, trust: bool = False
) -> Generator[Any, None, None]:
    """Predict, and give each output when it is made."""
    with opened(s, TrainerFn.PREDICTING, loaders, ckpt_path, trust=trust):
        for _, output in predictions(s, predict_feeds(s, loaders)):
            yield output


def tell_exception(s: Session, error: BaseException) -> None:
    """Tell everybody that the run is ending by an exception."""
    for callback in s.callbacks:
        s.observers.callback(callback, "on_exception", callback.on_exception)(s.trainer, s.module, error)
    if s.datamodule is not None:
        s.datamodule.on_exception(error)


def teardown(s: Session, fn: TrainerFn, begun: bool) -> None:
    """Call ``teardown`` of everybody, if ``setup`` was begun."""
    if not begun:
        return
    stage = str(fn)
    calls: list[Callable[[], None]] = []
    if s.datamodule is not None:
        calls.append(partial(s.datamodule.teardown, stage=stage))
    own = [s.observers.callback(c, "teardown", c.teardown) for c in s.callbacks]
    calls += [partial(call, s.trainer, s.module, stage=stage) for call in own]
    calls.append(partial(s.module.teardown, stage=stage))
    scope = s.book.enter("teardown")
    for call in calls:
        call()
    s.book.leave(scope)


def finalize_loggers(s: Session, status: Any) -> None:
    """Close the loggers with the outcome of the run."""
    for logger in s.loggers:
        s.observers.logger(logger, "finalize", logger.finalize)(status)
    s.observers.close()


def save_checkpoint(s: Session, path: Path, *, weights_only: bool, **record: Any) -> None:
    """Write the state of a run to ``path``."""

    def save() -> None:
        s.losses.settle()
        s.saves.settle()
        # every process has a part in what is collected; one writes, and all learn whether it could
        checkpoint, failed = state.collect(s, weights_only=weights_only), None
        described = state.record_of(s, **record)
        if s.strategy.state_dict_type == "sharded":
            sharded.save(s.strategy, path, checkpoint, described)
            return
        try:
            s.saves.save(path, checkpoint if s.strategy.is_global_zero else None, described)
        except Exception as error:  # noqa: BLE001 - told to all processes, and raised again
            failed = error
        told = s.strategy.broadcast(None if failed is None else (str(failed), isinstance(failed, CheckpointWriteError)))
        if failed is not None:
            raise failed
        if told is not None:
            kind = CheckpointWriteError if told[1] else CheckpointError
            raise kind(f"the first process could not save {path}: {told[0]}")

    s.hooks.timed("save_checkpoint", save)()
