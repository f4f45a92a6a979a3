# SPDX-License-Identifier: Apache-2.0
"""``training_step(self, dataloader_iter)``: the step fetches its batches itself."""

from __future__ import annotations

from leyden.core.data.handed import DataLoaderIter
from leyden.core.loops.after_batch import complete_batch, over
from leyden.core.loops.returned import outputs_of
from leyden.core.loops.schedulers import step_schedulers
from leyden.core.loops.step import automatic_step, manual_step
from leyden.core.loops.window import close_cut
from leyden.core.session import Session


def run_handed(s: Session, handed: DataLoaderIter) -> None:
    """Run an epoch whose steps fetch their batches themselves: how many each takes shows only after it."""
    p, hooks, every = s.progress, s.hooks, s.flags.accumulate_grad_batches
    step = automatic_step(s) if s.module.automatic_optimization else manual_step(s)
    collect = s.outputs.append if hasattr(s.module, "training_epoch_end") else None
    slot = p.batch % every
    open_batches = slot
    while not handed.exhausted():
        if hooks.call("on_train_batch_start", handed.batch, handed.batch_idx) == -1:
            break
        fetched = handed.count
        closes = slot == every - 1 or (handed.length is not None and fetched + 1 >= handed.length)
        try:
            output = step(handed, fetched, every, slot, closes)
        except StopIteration:
            break
        handed.refuse_idle(fetched)
        open_batches = slot = 0 if closes else slot + 1
        p.batches += handed.count - p.batch
        p.batch, p.is_last_batch = handed.count, handed.exhausted()
        if s.schedulers:
            step_schedulers(s, closes=closes, last=p.is_last_batch)
        hooks.call("on_train_batch_end", outputs_of(output), handed.batch, handed.batch_idx)
        if collect is not None:
            collect(outputs_of(output))
        complete_batch(s, closes)
        if over(s):
            p.cut = not p.is_last_batch
            break
    close_cut(s, handed.batch_idx, every, open_batches)
