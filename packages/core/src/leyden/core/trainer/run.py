# SPDX-License-Identifier: Apache-2.0
"""One call of a verb, from the first hook to the last: what happens in which order, also when something fails."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from leyden.core.callback import Callback
from leyden.core.checkpoint import file, state
from leyden.core.data.feed import Feed
from leyden.core.data.hooks import DataHooks
from leyden.core.errors import (
    Interrupted,
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    PossibleUserWarning,
    warn,
)
from leyden.core.hooks import overrides, replaces
from leyden.core.loops.after_batch import sanity_check
from leyden.core.loops.evaluate import evaluate
from leyden.core.loops.fit import fit, nothing_to_train
from leyden.core.loops.predict import predictions
from leyden.core.module import LightningModule
from leyden.core.optimizers import configured
from leyden.core.session import Session
from leyden.core.states import RunningStage, TrainerFn, TrainerStatus
from leyden.core.trainer.resume import resolve
from leyden.core.transfer import move_to_device
from leyden.core.val_check import make_val_check

_STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step"}
_EXPECTS = (
    "Lightning `Trainer` expects as minimum `training_step()`, `train_dataloader()` and `configure_optimizers()` to be"
    " defined."
)


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
            fit(s)
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
    begun, profiler = False, trainer._profiler
    status = "failed"
    try:
        validate_configuration(s, fn, loaders)
        prepare_data(s)
        path = resolve(s, ckpt_path)
        for logger in s.loggers:
            _ = logger.version  # all choose before one of them makes the folder of a version
        begun = True
        if profiler is not None:
            profiler.watch(s.module)
            profiler.setup(stage=str(fn), local_rank=None, log_dir=trainer.log_dir)
        setup(s, fn)
        checkpoint = file.load(path, "cpu", trust=trust) if path is not None else None
        trainer._ckpt_path = str(path) if path is not None else None
        if checkpoint is not None:
            state.restore_model(s, checkpoint)
            state.restore_callbacks(s, checkpoint)
        s.module.to(s.device)
        s.module.zero_grad()
        with s.stop.listening():
            yield checkpoint
        trainer.state.status = TrainerStatus.FINISHED
        status = "success"
    except BaseException as error:
        trainer.state.status = TrainerStatus.INTERRUPTED
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, Interrupted, GeneratorExit)) else "failed"
        if not isinstance(error, GeneratorExit):
            tell_exception(s, error)
        raise_as(error)
        raise
    finally:
        trainer.state.stage = None
        torch.set_grad_enabled(True)
        teardown(s, fn, begun)
        finalize_loggers(s, status)
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


def validate_configuration(s: Session, fn: TrainerFn, loaders: dict[str, Any]) -> None:
    """Refuse at once what can not work.

    Raises:
        MisconfigurationException: A method or a loader that the verb needs is missing.
    """
    module, name = s.module, type(s.module).__qualname__
    step = _STEPS.get(fn)
    if fn == TrainerFn.PREDICTING and module.predict_step is None:
        raise MisconfigurationException("`predict_step` cannot be None to run `Trainer.predict`")
    if fn == TrainerFn.FITTING:
        for method in ("training_step", "configure_optimizers"):
            if not overrides(module, method, LightningModule):
                raise MisconfigurationException(f"No `{method}()` method defined in {name}. {_EXPECTS}")
        if not s.source("train", loaders.get("train")).defined:
            raise no_loader(fn, "train", "train_dataloaders")
        has_loader = s.source("val", loaders.get("val")).defined
        has_step = overrides(module, "validation_step", LightningModule)
        if has_loader and not has_step:
            warn(
                "LY-T002",
                "You passed in a `val_dataloader` but have no `validation_step`. Skipping val loop.",
                PossibleUserWarning,
            )
        if has_step and not has_loader:
            warn(
                "LY-T003",
                "You defined a `validation_step` but have no `val_dataloader`. Skipping val loop.",
                PossibleUserWarning,
            )
        return
    if step is not None and not overrides(module, step, LightningModule):
        raise MisconfigurationException(f"No `{step}()` method defined to run `Trainer.{fn}`.")
    own = overrides(module, "predict_step", LightningModule)
    forward = module.forward is not None and replaces(module, "forward", LightningModule)
    if fn == TrainerFn.PREDICTING and not (own or forward):
        raise MisconfigurationException(
            f"`Trainer.predict` requires `forward` method to run: {name} has neither it nor `predict_step`."
        )
    kind = "val" if fn == TrainerFn.VALIDATING else str(fn)
    if not s.source(kind, loaders.get(kind)).defined:
        raise no_loader(fn, kind, "dataloaders")


def no_loader(fn: TrainerFn, kind: str, argument: str) -> MisconfigurationTypeError:
    """Return the error for a verb without data."""
    return MisconfigurationTypeError(
        f"An invalid dataloader was passed to `Trainer.{fn}({argument}=...)`. Found None. Either pass the dataloader to"
        f" the `.{fn}()` method OR implement `def {kind}_dataloader(self):` in your"
        f" LightningModule/LightningDataModule. {_EXPECTS if fn == TrainerFn.FITTING else ''}".rstrip()
    )


def prepare_data(s: Session) -> None:
    """Call ``prepare_data`` of the data module and the module."""
    for owner in (s.datamodule, s.module):
        if owner is not None and replaces(owner, "prepare_data", DataHooks):
            s.hooks.scoped("prepare_data", owner.prepare_data)()


def setup(s: Session, fn: TrainerFn) -> None:
    """Call ``setup`` of everybody, and ``configure_model``."""
    stage = str(fn)
    scoped = s.hooks.scoped
    if s.datamodule is not None:
        scoped("setup", s.datamodule.setup)(stage=stage)
    for callback in s.callbacks:
        if overrides(callback, "setup", Callback):
            scoped("setup", callback.setup)(s.trainer, s.module, stage=stage)
    scoped("setup", s.module.setup)(stage=stage)
    if replaces(s.module, "configure_model", LightningModule):
        scoped("configure_model", s.module.configure_model)()
    s.hooks.compile()


def prepare_fit(s: Session, loaders: dict[str, Any], checkpoint: dict[str, Any] | None) -> None:
    """Make optimisers and feeds, restore the training state, and try validation out."""
    trainer, module = s.trainer, s.module
    trainer.state.stage = RunningStage.TRAINING
    s.train_source = s.source("train", loaders.get("train"))
    s.optimizers, s.schedulers, s.frequencies = s.hooks.scoped("configure_optimizers", lambda: configured(module))()
    refuse_for_manual(s)
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
    if s.val_source is not None:
        every = s.flags.check_val_every_n_epoch
        s.val_check = make_val_check(s.flags.val_check_interval, every, feed.length)
        if s.val_feeds is None and (every is None or (s.progress.epoch + 1) % every == 0):
            s.make_val_feeds()


def refuse_for_manual(s: Session) -> None:
    """Refuse flags that only automatic optimisation carries out.

    Raises:
        MisconfigurationException: Clipping or accumulation is asked for, and the module optimises by itself.
    """
    if s.module.automatic_optimization:
        return
    if s.flags.gradient_clip_val:
        raise MisconfigurationException(
            "Automatic gradient clipping is not supported for manual optimization. Remove `Trainer(gradient_clip_val="
            f"{s.flags.gradient_clip_val})` or switch to automatic optimization."
        )
    if s.flags.accumulate_grad_batches != 1:
        raise MisconfigurationException(
            "Automatic gradient accumulation is not supported for manual optimization. Remove"
            f" `Trainer(accumulate_grad_batches={s.flags.accumulate_grad_batches})` or switch to automatic"
            " optimization; `self.optimizers().accumulate(loss, batches=n)` does the same in `training_step`."
        )


def log_configuration(s: Session) -> None:
    """Give the loggers the hyper-parameters of module and data module.

    Raises:
        MisconfigurationRuntimeError: Both have one of a name, with different values.
    """
    owners = (s.module, s.datamodule) if s.trainer.enable_autolog_hparams else ()
    given = [owner.hparams_initial for owner in owners if owner is not None and owner._log_hyperparams]
    if len(given) == 2:
        refuse_other_values(*given)
    params = {name: value for owner in given for name, value in owner.items() if name != "_class_path"}
    for logger in s.loggers:
        if params:
            logger.log_hyperparams(params)
        logger.log_graph(s.module)
        logger.save()


def refuse_other_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuse hyper-parameters that two owners know with different values."""

    def same(a: Any, b: Any) -> bool:
        # comparing tensors gives tensors
        return type(a) is type(b) and (a is b if isinstance(a, torch.Tensor) else bool(a == b))

    names = [n for n in one.keys() & other.keys() if n != "_class_path" and not same(one[n], other[n])]
    if names:
        raise MisconfigurationRuntimeError(
            f"Error while merging hparams: the keys {sorted(names)} are present in both the LightningModule's and"
            " LightningDataModule's hparams but have different values."
        )


def run_evaluation(s: Session, fn: TrainerFn, loaders: dict[str, Any], verbose: bool) -> list[dict[str, float]]:
    """Validate or test, print the results, and return them as numbers."""
    stage, kind = ("validation", "val") if fn == TrainerFn.VALIDATING else ("test", "test")
    s.trainer.state.stage = RunningStage.VALIDATING if fn == TrainerFn.VALIDATING else RunningStage.TESTING
    flag = f"limit_{kind}_batches"
    feeds = s.feeds(s.source(kind, loaders.get(kind)), getattr(s.flags, flag), flag)
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
    feeds = s.feeds(source, s.flags.limit_predict_batches, "limit_predict_batches")
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
        callback.on_exception(s.trainer, s.module, error)
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
    calls += [partial(c.teardown, s.trainer, s.module, stage=stage) for c in s.callbacks]
    calls.append(partial(s.module.teardown, stage=stage))
    scope = s.book.enter("teardown")
    for call in calls:
        call()
    s.book.leave(scope)


def finalize_loggers(s: Session, status: Any) -> None:
    """Close the loggers with the outcome of the run."""
    for logger in s.loggers:
        logger.finalize(status)


def save_checkpoint(s: Session, path: Path, *, weights_only: bool, **record: Any) -> None:
    """Write the state of a run to ``path``."""

    def save() -> None:
        file.save(path, state.collect(s, weights_only=weights_only), state.record_of(s, **record))

    s.hooks.timed("save_checkpoint", save)()
