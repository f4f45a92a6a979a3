# SPDX-License-Identifier: Apache-2.0
"""Training: epochs of batches, with validation where it is due."""

from __future__ import annotations

from functools import partial
from typing import Any

from leyden.core.data.ahead import has_workers
from leyden.core.data.feed import Feed
from leyden.core.data.handed import DataLoaderIter
from leyden.core.data.rounds import REST
from leyden.core.errors import MisconfigurationException
from leyden.core.hooks import takes_iterator
from leyden.core.loops.after_batch import can_stop, complete_batch, over
from leyden.core.loops.handed import run_handed
from leyden.core.loops.returned import outputs_of
from leyden.core.loops.schedulers import step_schedulers, update_schedulers
from leyden.core.loops.step import automatic_step, manual_step
from leyden.core.loops.window import close_cut
from leyden.core.ranks import rank_zero_info
from leyden.core.seeding import restore_rng_state
from leyden.core.session import Session


def fit(s: Session) -> None:
    """Train until an end condition is met. The optimisers and the feeds stand ready in the session."""
    if done(s):
        say_if_finished(s)
        return
    s.book.begin(s.training)
    s.hooks.call("on_train_start")
    while not done(s):
        resumed, s.resumed = s.resumed, None
        s.hooks.compile()
        if resumed is None:
            s.reload_train_feed()
            if s.resumed_between is not None:
                go_on_between(s, s.resumed_between)
                s.resumed_between = None
            begin_epoch(s)
        if s.progress.epochs_processed == s.progress.epoch and not (resumed is None and over(s)):
            s.hooks.timed("run_training_epoch", run_batches)(s, resumed)
        elif resumed is not None:
            go_on_between(s, resumed)
        end_epoch(s)
    s.book.end()
    s.hooks.call("on_train_end")


def go_on_between(s: Session, resumed: dict[str, Any]) -> None:
    """Take over the random state of a checkpoint that was taken between two passes over the data."""
    if s.train_feed is not None:
        s.train_feed.order.pass_over(resumed["order"], resumed["generators"])
    if resumed["rng"] is not None:
        restore_rng_state(resumed["rng"])


def say_if_finished(s: Session) -> None:
    """Say that a model, fitted once more, has had all that was asked for."""
    p = s.progress
    if p.batches:
        s.trainer._say(
            f"nothing is left to train: {p.epoch} epochs and {p.global_step} steps are done. To go on, raise"
            " `trainer.fit_loop.max_epochs` or `max_steps`."
        )


def done(s: Session) -> bool:
    """Tell whether training is over, and say why: no batches, enough steps or epochs, or a stop allowed by now."""
    p, flags = s.progress, s.flags
    if s.train_feed is None or s.train_feed.length == 0:
        return _stopped("No training batches.")
    if s.resumed is not None:
        beyond = flags.max_epochs is not None and 0 <= flags.max_epochs <= p.epoch
        return beyond and _stopped(f"`max_epochs={flags.max_epochs}` reached.")
    if flags.max_epochs is not None and 0 <= flags.max_epochs <= p.epochs_processed:
        return _stopped(f"`max_epochs={flags.max_epochs}` reached.")
    if 0 <= flags.max_steps <= p.global_step:
        return _stopped(f"`max_steps={flags.max_steps}` reached.")
    if can_stop(s):
        return _stopped("`trainer.should_stop` was set.")
    if s.trainer.should_stop:
        rank_zero_info(
            f"Trainer was signaled to stop but the required `min_epochs={flags.min_epochs!r}` or"
            f" `min_steps={flags.min_steps!r}` has not been met. Training will continue..."
        )
    return False


def _stopped(reason: str) -> bool:
    rank_zero_info(f"`Trainer.fit` stopped: {reason}")
    return True


def begin_epoch(s: Session) -> None:
    """Begin an epoch: counters, samplers, hooks."""
    p = s.progress
    p.epochs_started = p.epoch + 1
    p.cut = p.is_last_batch = s.pass_begun = False
    s.epoch_start_steps = p.global_step
    s.training.on_epoch = False
    if s.train_feed is not None:
        s.train_feed.set_epoch(p.epoch)
    s.hooks.call("on_train_epoch_start")


def run_batches(s: Session, resumed: dict[str, Any] | None) -> None:
    """Run the batches of an epoch, or those that a checkpoint left: the way of a batch, top to bottom."""
    p, flags, table, hooks, book, feed = s.progress, s.flags, s.hooks.table, s.hooks, s.book, s.train_feed
    assert feed is not None
    if resumed is not None:
        feed.set_epoch(p.epoch)
    batches = feed.batches(p.batch, (resumed or {}).get("order"))
    s.pass_begun = True
    batches = hooks.timed_batches("[_TrainingEpochLoop].train_dataloader_next", batches, feed)
    if resumed is not None and not reopen(s, feed, resumed):
        feed.order.pass_over(resumed["order"], resumed["generators"])
        feed.order.forget_seeds()
        return
    if takes_iterator(s.module.training_step):
        run_handed(s, DataLoaderIter(feed, batches, p.batch, partial(setattr, book, "batch")))
        return
    step = hooks.timed("run_training_batch", automatic_step(s) if s.module.automatic_optimization else manual_step(s))
    collect = s.outputs.append if hasattr(s.module, "training_epoch_end") else None
    every, length = flags.accumulate_grad_batches, feed.length
    index, window, open_batches = p.batch - 1, every, p.batch % every
    for index, batch in enumerate(batches, p.batch):
        given = batch
        if batch is REST:
            # hooks see the last batch once more, and no outputs
            batch = book.rest()
        else:
            book.batch = batch
        p.is_last_batch = feed.is_last
        if table["on_train_batch_start"] and hooks.call("on_train_batch_start", batch, index) == -1:
            break
        slot = index % every
        closes = slot == every - 1 or feed.is_last
        window = every if length is None else min(every, length - (index - slot))
        output = step(given, index, window, slot, closes)
        open_batches = 0 if closes else slot + 1
        p.batch = index + 1
        p.batches += 1
        if s.schedulers:
            step_schedulers(s, closes=closes, last=feed.is_last)
        if table["on_train_batch_end"]:
            hooks.call("on_train_batch_end", outputs_of(output), batch, index)
        if collect is not None:
            collect(outputs_of(output))
        complete_batch(s, closes)
        if over(s):
            p.cut = not feed.is_last
            break
    close_cut(s, index, window, open_batches)
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
    if has_workers(feed.loader):
        # without workers, the batches that are left seed them again
        feed.order.forget_seeds()
    if p.batch_completed < p.batch:
        complete_batch(s, p.batch % s.flags.accumulate_grad_batches == 0 or p.is_last_batch)
    return not p.is_last_batch and not over(s)


def end_epoch(s: Session) -> None:
    """End an epoch: hooks, schedulers that monitor, the row of epoch values."""
    p = s.progress
    if p.epochs_processed == p.epoch:
        s.losses.settle(s.module)
        s.book.end_batches()
        p.epochs_processed += 1
        if hasattr(s.module, "training_epoch_end"):
            outputs, s.outputs = s.outputs, []
            end: Any = s.module.training_epoch_end
            s.hooks.scoped("training_epoch_end", end)(outputs)
        s.hooks.call("on_train_epoch_end")
    _, logged = s.book.agree()
    update_schedulers(s, "epoch", plateau=True)
    s.book.write(logged, p.windows - 1, p.epoch)
    s.training.clear()
    s.training.on_epoch = False
    p.batches_before, p.batch, p.batch_completed = p.batch, 0, 0
    p.epoch += 1
