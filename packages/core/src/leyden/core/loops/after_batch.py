# SPDX-License-Identifier: Apache-2.0
"""What follows a training batch: its log row, validation if it is due, and the question whether to go on."""

from __future__ import annotations

from leyden.core.data.feed import Feed
from leyden.core.errors import Interrupted
from leyden.core.loops.evaluate import evaluate
from leyden.core.loops.schedulers import update_schedulers
from leyden.core.seeding import isolate_rng
from leyden.core.session import Session
from leyden.core.states import RunningStage


def complete_batch(s: Session, closes: bool) -> None:
    """Do what follows a batch's hooks: its log row, validation if it is due, and the look at the stop flag."""
    p, every, rule = s.progress, s.flags.log_every_n_steps, s.val_check
    if p.reported_at != p.batches:
        p.reported_at = p.batches
        if every and (p.windows + 1) % every == 0:
            s.losses.settle()
        row = closes or not s.module.automatic_optimization
        if row and (s.loggers or s.strategy.world_size > 1) and every and (p.windows + 1) % every == 0:
            s.book.step_row(p.windows, p.epoch)
    if rule is not None and p.validated_at != p.batches and rule.due(p, stopping=can_stop(s)):
        validate(s, closes)
    if closes:
        if s.schedulers:
            update_schedulers(s, "step", plateau=True)
        p.windows += 1
    p.batch_completed = p.batch
    if s.saves.landed:
        s.saves.settle()
    signum = s.stop.seen()
    if signum is not None:
        raise Interrupted(signum)


def over(s: Session) -> bool:
    """Tell whether enough steps are done, or a stop was asked for and is allowed."""
    return 0 <= s.flags.max_steps <= s.progress.global_step or can_stop(s)


def can_stop(s: Session) -> bool:
    """Tell whether ``trainer.should_stop`` is set and the smallest numbers of epochs and steps are reached."""
    if not s.trainer.should_stop:
        return False
    p, flags = s.progress, s.flags
    return p.epoch >= (flags.min_epochs or 0) and p.global_step >= (flags.min_steps or 0)


def validate(s: Session, closes: bool = True) -> None:
    """Run validation inside an epoch and go back to training."""
    s.reload_val_feeds()
    assert s.val_feeds is not None
    state, batch = s.trainer.state, s.book.batch
    before, state.stage = state.stage, RunningStage.VALIDATING
    s.book.agree()  # whoever monitors during validation sees what the training step logged last
    if closes:
        s.hooks.scoped("on_validation_model_zero_grad", s.module.on_validation_model_zero_grad)()
    evaluate(s, "validation", s.val_feeds, before_end=lambda: setattr(s.progress, "validated_at", s.progress.batches))
    s.book.batch = batch
    state.stage = before
    if s.val_check is not None:
        s.val_check.validated()


def sanity_check(s: Session) -> None:
    """Run a few validation batches before training, and forget them: an error in validation shows at once."""
    limit = s.flags.num_sanity_val_steps
    if s.val_source is None or limit == 0:
        return
    state = s.trainer.state
    before, state.stage = state.stage, RunningStage.SANITY_CHECKING
    with isolate_rng():
        s.hooks.call("on_sanity_check_start")
        s.make_val_feeds()
        feeds = [_part(feed, limit) for feed in s.val_feeds or ()]
        evaluate(s, "validation", feeds, log=False)
        for feed in feeds:
            feed.order.detach()
        s.hooks.call("on_sanity_check_end")
    state.stage = before
    s.book.reset()
    s.progress.val_batches = 0


def _part(feed: Feed, steps: int) -> Feed:
    """Return the first batches of a validation feed: as many as asked for, and as its own limit allows."""
    if steps == -1:
        take: int | float = 1.0 if feed.length is None else feed.length
    else:
        take = steps if feed.length is None else min(steps, feed.length)
    return feed.first(take, "num_sanity_val_steps")
