# SPDX-License-Identifier: Apache-2.0
"""Prediction: every loader once, the outputs returned or left to callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyden.core.data.feed import Feed
from leyden.core.errors import Interrupted
from leyden.core.loops.evaluate import evaluation_step, modes_of, restore_modes
from leyden.core.session import Session
from leyden.core.transfer import move_to_device


def predict(s: Session, feeds: Sequence[Feed], *, keep: bool) -> list[list[Any]]:
    """Run one pass of prediction.

    Args:
        s: The run.
        feeds: The loaders' batches.
        keep: Whether outputs are collected, on the CPU.

    Returns:
        The outputs of each loader, batch by batch; empty lists if they are not kept.
    """
    module, hooks, table = s.module, s.hooks, s.hooks.table
    modes = modes_of(module)
    module.on_predict_model_eval()
    hooks.call("on_predict_start")
    hooks.call("on_predict_epoch_start")
    several = len(feeds) > 1
    step = evaluation_step(s, "predict_step", several)
    kept: list[list[Any]] = [[] for _ in feeds]
    for index, feed in enumerate(feeds):
        which = (index,) if several else ()
        for batch_idx, batch in enumerate(feed.batches()):
            if table["on_predict_batch_start"]:
                hooks.call("on_predict_batch_start", batch, batch_idx, *which)
            before = s.book.enter("predict_step")
            output = step(batch, batch_idx, index)
            s.book.leave(before)
            if table["on_predict_batch_end"]:
                hooks.call("on_predict_batch_end", output, batch, batch_idx, *which)
            if keep:
                kept[index].append(move_to_device(output, "cpu"))
            if s.stop.signum is not None:
                raise Interrupted(s.stop.signum)
    hooks.call("on_predict_epoch_end")
    hooks.call("on_predict_end")
    restore_modes(modes)
    return kept
