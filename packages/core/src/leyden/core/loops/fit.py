# SPDX-License-Identifier: Apache-2.0
"""Training: epochs of batches, with validation where it is due."""

from __future__ import annotations

from typing import Any

from leyden.core.data.feed import Feed
from leyden.core.errors import Interrupted, MisconfigurationException
from leyden.core.loops.evaluate import evaluate
from leyden.core.loops.schedulers import update_schedulers
from leyden.core.loops.step import automatic_step, manual_step, outputs_of
from leyden.core.seeding import isolate_rng, restore_rng_state
from leyden.core.session import Session
from leyden.core.states import RunningStage


def fit(s: Session) -> None:
    """Train until an end condition is met. The optimisers and the feeds stand ready in the session."""
    s.book.begin(s.training)
    s.hooks.call("on_train_start")
    while not done(s):
        resumed, s.resumed = s.resumed, None
        s.hooks.compile()
        if resumed is None:
            s.reload_train_feed()
            if s.resume_rng is not None:
                restore_rng_state(s.resume_rng)
                s.resume_rng = None
            begin_epoch(s)
        if s.progress.epochs_processed == s.progress.epoch:
            run_batches(s, resumed)
        elif resumed is not None and resumed["rng"] is not None:
            restore_rng_state(resumed["rng"])
        end_epoch(s)
    s.book.end()
    s.hooks.call("on_train_end")


def done(s: Session) -> bool:
    """Tell whether training is over: no batches, enough steps or epochs, or a stop that is allowed by now."""
    p, flags = s.progress, s.flags
    if s.train_feed is None or s.train_feed.length == 0:
        return True
    if s.resumed is not None:
        return False
    if flags.max_epochs is not None and 0 <= flags.max_epochs <= p.epochs_processed:
        return True
    return over(s)


def over(s: Session) -> bool:
    """Tell whether enough steps are done, or a stop was asked for and is allowed."""
    return 0 <= s.flags.max_steps <= s.progress.global_step or can_stop(s)


def can_stop(s: Session) -> bool:
    """Tell whether ``trainer.should_stop`` is set and the smallest numbers of epochs and steps are reached."""
    if not s.trainer.should_stop:
        return False
    p, flags = s.progress, s.flags
    return p.epoch >= (flags.min_epochs or 0) and p.global_step >= (flags.min_steps or 0)


def begin_epoch(s: Session) -> None:
    """Begin an epoch: counters, samplers, hooks."""
    p = s.progress
    p.epochs_started = p.epoch + 1
    s.epoch_start_steps = p.global_step
    s.training.on_epoch = False
    if s.train_feed is not None:
        s.train_feed.set_epoch(p.epoch)
    s.hooks.call("on_train_epoch_start")


def run_batches(s: Session, resumed: dict[str, Any] | None) -> None:
    """Run the batches of an epoch, or those that a checkpoint left: the way of a batch, top to bottom."""
    p, flags, table, hooks, book, feed = s.progress, s.flags, s.hooks.table, s.hooks, s.book, s.train_feed
    assert feed is not None
    batches = feed.batches(p.batch, (resumed or {}).get("order"))
    if resumed is not None and not reopen(s, feed, resumed):
        return
    step = automatic_step(s) if s.module.automatic_optimization else manual_step(s)
    collect = s.outputs.append if hasattr(s.module, "training_epoch_end") else None
    every, length = flags.accumulate_grad_batches, feed.length
    index, window, open_batches = p.batch - 1, every, p.batch % every
    for index, batch in enumerate(batches, p.batch):
        book.batch = batch
        p.is_last_batch = feed.is_last
        if table["on_train_batch_start"] and hooks.call("on_train_batch_start", batch, index) == -1:
            break
        slot = index % every
        closes = slot == every - 1 or feed.is_last
        window = every if length is None else min(every, length - (index - slot))
        output = step(batch, index, window, slot, closes)
        open_batches = 0 if closes else slot + 1
        p.batch = index + 1
        p.batches += 1
        if s.schedulers:
            if closes:
                update_schedulers(s, "step", plateau=False)
            if feed.is_last:
                update_schedulers(s, "epoch", plateau=False)
        if table["on_train_batch_end"]:
            hooks.call("on_train_batch_end", outputs_of(output), batch, index)
        if collect is not None:
            collect(outputs_of(output))
        complete_batch(s, closes)
        if over(s):
            break
    if open_batches and s.has_gradients and s.finish is not None:
        s.finish(index, window, open_batches)
        p.windows += 1
    if p.batch == 0 and feed.length is None:
        raise nothing_to_train(feed.loader)


def nothing_to_train(loader: Any) -> MisconfigurationException:
    """Return the error for training data without a single batch."""
    return MisconfigurationException(
        f"the train dataloader ({type(loader).__name__}) yields no batch: check the data set's length, `drop_last`"
        " and the sampler."
    )


def reopen(s: Session, feed: Feed, resumed: dict[str, Any]) -> bool:
    """Do what was left to do for the batch at which a checkpoint was saved; returns whether batches remain."""
    p = s.progress
    if resumed.get("rng") is not None:
        restore_rng_state(resumed["rng"])
    if p.batch_completed < p.batch:
        complete_batch(s, p.batch % s.flags.accumulate_grad_batches == 0 or p.is_last_batch)
    return not p.is_last_batch and not over(s)


def complete_batch(s: Session, closes: bool) -> None:
    """Do what follows a batch's hooks: its log row, validation if it is due, and the look at the stop flag."""
    p, every, rule = s.progress, s.flags.log_every_n_steps, s.val_check
    if p.reported_at != p.batches:
        p.reported_at = p.batches
        if s.loggers and every and (p.windows + 1) % every == 0:
            s.book.step_row(p.windows, p.epoch)
    if rule is not None and p.validated_at != p.batches and rule.due(p, stopping=can_stop(s)):
        validate(s, closes)
    if closes:
        if s.schedulers:
            update_schedulers(s, "step", plateau=True)
        p.windows += 1
    p.batch_completed = p.batch
    if s.stop.signum is not None:
        raise Interrupted(s.stop.signum)


def validate(s: Session, closes: bool = True) -> None:
    """Run validation inside an epoch and go back to training."""
    s.reload_val_feeds()
    assert s.val_feeds is not None
    state, batch = s.trainer.state, s.book.batch
    before, state.stage = state.stage, RunningStage.VALIDATING
    if closes:
        s.hooks.scoped("on_validation_model_zero_grad", s.module.on_validation_model_zero_grad)()
    evaluate(s, "validation", s.val_feeds, before_end=lambda: setattr(s.progress, "validated_at", s.progress.batches))
    s.book.batch = batch
    state.stage = before


def sanity_check(s: Session) -> None:
    """Run a few validation batches before training, and forget them: an error in validation shows at once."""
    limit = s.flags.num_sanity_val_steps
    if s.val_source is None or limit == 0:
        return
    take = 1.0 if limit == -1 else limit
    state = s.trainer.state
    before, state.stage = state.stage, RunningStage.SANITY_CHECKING
    with isolate_rng():
        s.hooks.call("on_sanity_check_start")
        s.make_val_feeds()
        feeds = [Feed(f.loader, take, "num_sanity_val_steps", f.prepare, f.name) for f in s.val_feeds or ()]
        evaluate(s, "validation", feeds, log=False)
        s.hooks.call("on_sanity_check_end")
    state.stage = before
    s.book.reset()
    s.progress.val_batches = 0


def end_epoch(s: Session) -> None:
    """End an epoch: hooks, schedulers that monitor, the row of epoch values."""
    p = s.progress
    if p.epochs_processed == p.epoch:
        s.book.publish()  # whoever monitors a value that is logged at steps only sees the last step's
        s.training.on_epoch = True
        p.epochs_processed += 1
        if hasattr(s.module, "training_epoch_end"):
            outputs, s.outputs = s.outputs, []
            end: Any = s.module.training_epoch_end
            s.hooks.scoped("training_epoch_end", end)(outputs)
        s.hooks.call("on_train_epoch_end")
    update_schedulers(s, "epoch", plateau=True)
    _, logged = s.book.publish()
    s.book.write(logged, p.windows - 1, p.epoch)
    s.training.clear()
    s.training.on_epoch = False
    p.batch = p.batch_completed = 0
    p.is_last_batch = False
    p.epoch += 1
