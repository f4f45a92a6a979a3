# SPDX-License-Identifier: Apache-2.0
"""Prediction: every loader once, each output given as soon as it is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import torch

from leyden.core.data.feed import Feed
from leyden.core.data.order import Order
from leyden.core.errors import Interrupted
from leyden.core.loops.evaluate import evaluation_step, handed_batches, modes_of, restore_modes
from leyden.core.session import Session


def predictions(s: Session, feeds: Sequence[Feed]) -> Generator[tuple[int, Any], None, None]:
    """Run one pass of prediction.

    Gradients are off while the model and the hooks run, and as they were where the outputs are taken.

    Args:
        s: The run.
        feeds: The loaders' batches.

    Yields:
        The number of the loader and the output of one batch.
    """
    module, hooks, table = s.module, s.hooks, s.hooks.table
    off = torch.inference_mode if s.flags.inference_mode else torch.no_grad
    modes = modes_of(module)
    hooks.scoped("on_predict_model_eval", module.on_predict_model_eval)()
    with off():
        hooks.call("on_predict_start")
        hooks.call("on_predict_epoch_start")
    several = len(feeds) > 1
    s.predicted_indices = [[] for _ in feeds]
    for index, feed in enumerate(feeds):
        feed.set_epoch(s.progress.epoch)
        which = (index,) if several else ()
        drawn = note_indices(s, feed)
        batches = hooks.timed_batches("[_PredictionLoop].predict_next", feed.batches(), feed)
        handed = handed_batches(s, "predict_step", feed, batches, index)
        step = evaluation_step(s, "predict_step", several, handed)
        for batch_idx, batch in enumerate(batches if handed is None else handed.turns()):
            if drawn is not None:
                s.predicted_indices[index].append(drawn.popleft() if drawn else None)
            with off():
                if table["on_predict_batch_start"]:
                    hooks.call("on_predict_batch_start", batch, batch_idx, *which)
                before = s.book.enter("predict_step")
                output = step(batch, batch_idx, index)
                s.book.leave(before)
                if handed is not None:
                    batch = handed.batch
                if table["on_predict_batch_end"]:
                    hooks.call("on_predict_batch_end", output, batch, batch_idx, *which)
            yield index, output
            if s.stop.signum is not None:
                raise Interrupted(s.stop.signum)
        feed.order.detach()
    with off():
        hooks.call("on_predict_epoch_end")
        hooks.call("on_predict_end")
    restore_modes(modes)


def note_indices(s: Session, feed: Feed) -> deque[list[int]] | None:
    """Have the indices of a loader's batches noted if a callback wants to know them, as far as the loader has any."""
    wanted = any(getattr(callback, "wants_batch_indices", False) for callback in s.callbacks)
    if not wanted or not isinstance(feed.order, Order):
        return None
    feed.order.drawn = deque()
    feed.order.attach()
    return feed.order.drawn
