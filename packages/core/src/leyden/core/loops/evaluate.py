# SPDX-License-Identifier: Apache-2.0
"""Validation and test: every loader once, without gradients, with the module's modes put back as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from leyden.core.data.feed import Feed
from leyden.core.data.handed import DataLoaderIter
from leyden.core.errors import Interrupted, MisconfigurationException
from leyden.core.hooks import insists, replaces, takes, takes_iterator
from leyden.core.logbook.results import Results
from leyden.core.module import LightningModule
from leyden.core.session import Session

Row = dict[str, Any]


class LoaderIndexError(MisconfigurationException, RuntimeError):
    """The arguments of a step or hook do not fit the number of loaders."""


def modes_of(module: nn.Module) -> dict[nn.Module, bool]:
    """Return the training mode of every submodule."""
    return {m: m.training for m in module.modules()}


def restore_modes(modes: dict[nn.Module, bool]) -> None:
    """Put every submodule back into its mode."""
    for module, training in modes.items():
        module.training = training


def evaluate(
    s: Session,
    stage: str,
    feeds: Sequence[Feed],
    *,
    log: bool = True,
    inference_mode: bool = False,
    before_end: Callable[[], None] | None = None,
) -> list[Row]:
    """Run one pass over evaluation loaders.

    Args:
        s: The run.
        stage: ``"validation"`` or ``"test"``.
        feeds: The loaders' batches.
        log: Whether a row of results is written; the sanity check writes none.
        inference_mode: Whether `torch.inference_mode` takes the place of `torch.no_grad`.
        before_end: Called when all values stand, before the ``on_..._end`` hooks, in which a checkpoint may be saved.

    Returns:
        The logged values of each loader.
    """
    for feed in feeds:
        if feed.available == 0:
            raise MisconfigurationException(
                f"a {stage} dataloader ({type(feed.loader).__name__}) has length 0: it yields no batch."
            )
    module, hooks = s.module, s.hooks
    results = Results(loaders=[feed.name for feed in feeds])
    modes = modes_of(module)
    hooks.scoped(f"on_{stage}_model_eval", getattr(module, f"on_{stage}_model_eval"))()
    s.book.begin(results)
    s.strategy.before_evaluation()
    with torch.inference_mode() if inference_mode else torch.no_grad():
        rows = _pass(s, stage, feeds, results, log=log, before_end=before_end)
    # outside of inference mode: what a metric makes in its reset must be usable in training
    results.clear()
    s.book.end()
    if replaces(module, f"on_{stage}_model_train", LightningModule):
        hooks.scoped(f"on_{stage}_model_train", getattr(module, f"on_{stage}_model_train"))()
    else:
        restore_modes(modes)
    return rows


def _pass(
    s: Session,
    stage: str,
    feeds: Sequence[Feed],
    results: Results,
    *,
    log: bool,
    before_end: Callable[[], None] | None,
) -> list[Row]:
    hooks, book, several = s.hooks, s.book, len(feeds) > 1
    hooks.call(f"on_{stage}_start")
    hooks.call(f"on_{stage}_epoch_start")
    rows: list[Row] = []
    logged: Row = {}
    outputs: list[list[Any]] | None = [] if hasattr(s.module, f"{stage}_epoch_end") else None
    for index, feed in enumerate(feeds):
        feed.set_epoch(s.progress.epoch)
        results.select(index)
        results.on_epoch = False
        kept = _one_loader(s, stage, feed, index, results, several=several, keep=outputs is not None, log=log)
        if outputs is not None:
            outputs.append(kept)
        reported, values = book.end_batches()
        rows.append(dict(reported))
        logged |= values
    book.batch = None
    results.select(None)
    if outputs is not None:
        end = hooks.scoped(f"{stage}_epoch_end", getattr(s.module, f"{stage}_epoch_end"))
        end(outputs if several else outputs[0])
    hooks.call(f"on_{stage}_epoch_end")
    reported, values = book.agree()
    for row in rows:
        row.update(reported)
    if log:
        book.write({**logged, **values}, s.progress.windows, s.progress.epoch)
    if before_end is not None:
        before_end()
    hooks.call(f"on_{stage}_end")
    return rows


def _one_loader(
    s: Session, stage: str, feed: Feed, index: int, results: Results, *, several: bool, keep: bool, log: bool
) -> list[Any]:
    hooks, book, table = s.hooks, s.book, s.hooks.table
    starts, ends, scope = f"on_{stage}_batch_start", f"on_{stage}_batch_end", f"{stage}_step"
    which = (index,) if several else ()
    kept: list[Any] = []
    before = book.evaluated.get((stage, index), 0)
    kind = "val" if stage == "validation" else stage
    batches = hooks.timed_batches(f"[_EvaluationLoop].{kind}_next", feed.batches(), feed)
    handed = handed_batches(s, scope, feed, batches, index)
    step = evaluation_step(s, scope, several, handed)
    for batch_idx, batch in enumerate(batches if handed is None else handed.turns()):
        if handed is None:
            book.batch = batch
        if table[starts]:
            hooks.call(starts, batch, batch_idx, *which)
        book.hook = scope
        try:
            output = step(batch, batch_idx, index)
        except StopIteration:
            if handed is None:
                raise
            break
        book.hook = None
        if handed is not None:
            batch = handed.batch
        if table[ends]:
            hooks.call(ends, output, batch, batch_idx, *which)
        if keep:
            kept.append(output)
        if stage == "validation":
            s.progress.val_batches += 1
        if log:
            book.evaluated[stage, index] = before + batch_idx + 1
            if any(slot.routing.on_step for _, slot in results.slots()):
                book.step_row(before + batch_idx, None)
        if s.stop.signum is not None and s.stop.alone:
            raise Interrupted(s.stop.signum)
    return kept


def handed_batches(s: Session, name: str, feed: Feed, batches: Iterator[Any], index: int) -> DataLoaderIter | None:
    """Return what a step gets that fetches its batches itself; None for one that is given them."""
    if not takes_iterator(getattr(s.module, name)):
        return None
    return DataLoaderIter(feed, batches, 0, partial(setattr, s.book, "batch"), index)


def evaluation_step(
    s: Session, name: str, several: bool, handed: DataLoaderIter | None = None
) -> Callable[[Any, int, int], Any]:
    """Return a step as a function of (batch, batch_idx, dataloader_idx), whatever of it the user's method takes.

    Args:
        s: The run.
        name: The method.
        several: Whether there are several loaders.
        handed: What the step gets instead, if it fetches its batches itself.

    Raises:
        LoaderIndexError: The step or a batch hook does not take ``dataloader_idx`` though there are several loaders, or
            insists on it though there is one.
    """
    stage = name.removesuffix("_step")
    hooks = (f"on_{stage}_batch_start", f"on_{stage}_batch_end")
    for hook in hooks if handed is not None else (name, *hooks):
        _check_index(s.module, hook, 2 if hook == name else 3 if hook.endswith("end") else 2, several)
    method = s.strategy.precision_plugin.around(s.strategy.step_method(name))
    if handed is None:
        step = evaluation_call(s, method, name, several)
    else:
        timed = s.hooks.timed(f"[Strategy]{type(s.strategy).__name__}.{name}", method)
        step = lambda batch, batch_idx, index: timed(handed)  # noqa: E731
    end = getattr(s.module, f"{name}_end", None)
    if end is not None:
        after = s.hooks.scoped(f"{name}_end", end)
        return lambda batch, batch_idx, index: after(step(batch, batch_idx, index))
    return step


def _check_index(module: LightningModule, hook: str, position: int, several: bool) -> None:
    method = getattr(module, hook)
    kind = "val" if "validation" in hook else "test" if "test" in hook else "predict"
    where = f"`{type(module).__name__}.{hook}()`"
    if several:
        if not takes(method, "dataloader_idx", position):
            raise LoaderIndexError(
                f"You provided multiple `{kind}_dataloader`, but no `dataloader_idx` argument in {where}. Try adding"
                " `dataloader_idx=0` to its signature."
            )
        return
    if insists(method, "dataloader_idx"):
        raise LoaderIndexError(
            f"You provided only a single `{kind}_dataloader`, but have included `dataloader_idx` in {where}. Either"
            " remove the argument or give it a default value i.e. `dataloader_idx=0`."
        )


def evaluation_call(s: Session, method: Callable[..., Any], name: str, several: bool) -> Callable[[Any, int, int], Any]:
    """Return a step of the module with the arguments that it takes, by position: their names are the user's."""
    with_batch = takes(getattr(s.module, name), "batch_idx", 1 if not several else 2)
    method = s.hooks.timed(f"[Strategy]{type(s.strategy).__name__}.{name}", method)
    if several:
        if with_batch:
            return method
        return lambda batch, batch_idx, index: method(batch, index)
    if with_batch:
        return lambda batch, batch_idx, index: method(batch, batch_idx)
    return lambda batch, batch_idx, index: method(batch)
