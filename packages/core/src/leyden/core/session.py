# SPDX-License-Identifier: Apache-2.0
"""One run's live objects, wired once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.callback import Callback
from leyden.core.checkpoint.writer import Writer
from leyden.core.data.advice import advise, refuse_replays
from leyden.core.data.ahead import DeviceCopies, streams_of
from leyden.core.data.combined import CombinedLoader
from leyden.core.data.evaluation_share import EvaluationShare
from leyden.core.data.feed import Feed
from leyden.core.data.hooks import DataHooks
from leyden.core.data.rounds import Rounds, maximum_over
from leyden.core.data.shard import Shard
from leyden.core.data.source import Source, named_loaders
from leyden.core.data.unshuffled import unshuffled
from leyden.core.errors import MisconfigurationValueError
from leyden.core.hooks import HookTable, overrides
from leyden.core.interfaces import LoggerLike
from leyden.core.logbook.book import LogBook
from leyden.core.logbook.results import Results
from leyden.core.losses import LossWatch
from leyden.core.module import LightningModule
from leyden.core.observers import Observers
from leyden.core.optimizers import LRSchedulerConfig
from leyden.core.progress import Progress
from leyden.core.signals import StopFlag
from leyden.core.val_check import ValCheck

if TYPE_CHECKING:
    from leyden.core.trainer.trainer import Trainer


class Session:
    """What the loops work with during one call of a verb.

    Args:
        trainer: The trainer, which hooks get as their first argument.
        module: The module.
        datamodule: The data module, if there is one.
        callbacks: Callbacks in calling order.
        loggers: Where rows go.
        progress: Counters of the fit that this run belongs to.

    Attributes:
        flags: The trainer's flags.
        strategy: How the run spreads over devices.
        device: Where the module and the batches are.
        optimizers: The optimisers, in a fit.
        schedulers: Their schedulers.
        frequencies: For how many batches each of several optimisers has its turn; empty if all step at every batch.
        has_gradients: Whether the open accumulation window holds gradients.
        window_weights: Sum of the weights in the open accumulation window, by the id of the optimiser.
        finish: What ends an accumulation window early, where one optimiser steps automatically.
        observers: What lets loggers and callbacks that only watch fail.
        saves: What writes checkpoints, beside the run or before it goes on.
        compiled: What `torch.compile` made of the training step, and of optimisers' steps by their id.
        step_optimizers: The optimisers as user code steps them, once it asked for them.
        open_optimizers: Ids of the optimisers that manual optimisation has not stepped since the last backward pass.
        outputs: What the steps of the epoch returned, collected only for a module with ``training_epoch_end``.
        predicted_indices: Per loader of a prediction, the places in the data set of each batch's samples, if noted.
        train_source: Where the training loader comes from, in a fit.
        train_feed: The training batches, once they were asked for.
        val_source: Where the validation loaders come from, if there are any.
        val_feeds: The validation batches, once they were asked for.
        other_feeds: The batches of a verb that evaluates or predicts.
        recomputed: The parts of the module whose activations are computed again in the backward pass.
        val_check: When validation runs inside the fit, or None for never.
        training: The log book's slots of training.
        loaded_at: Epoch in which the training loader was asked for.
        val_loaded_at: Epoch in which the validation loaders were asked for.
        ended_loaders: The loaders, without their iterators, once the run has ended.
        ended_with: The numbers of batches, once the run has ended and let go of its loaders.
        epoch_start_steps: Optimiser steps when the current epoch began.
        pass_begun: Whether the pass over the data of the current epoch has begun.
        resumed: What a checkpoint said about the open epoch, until that epoch goes on.
        resumed_between: The same of a checkpoint that was taken between two epochs, until the next epoch begins.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        datamodule: Any,
        callbacks: Sequence[Callback],
        loggers: Sequence[LoggerLike],
        progress: Progress,
    ) -> None:
        self.trainer, self.module, self.datamodule = trainer, module, datamodule
        self.callbacks, self.loggers, self.progress = list(callbacks), list(loggers), progress
        self.flags = trainer.flags
        self.strategy = trainer.strategy
        self.device = self.strategy.root_device
        self.observers = Observers(strict=bool(self.flags.strict))
        self.book = LogBook(module, loggers, self.strategy.group, self.strategy.world_size, self.observers)
        self.log = self.book.log
        self.training = Results(training=True)
        self.hooks = HookTable(trainer, module, self.callbacks, self.book, self.observers, trainer._profiler)
        self.stop = StopFlag()
        self.saves = Writer(self.strategy.broadcast, alone=self.strategy.world_size == 1)
        self.losses = LossWatch(self.flags.on_nonfinite, self.strategy, progress)
        self.optimizers: list[Optimizer] = []
        self.schedulers: list[LRSchedulerConfig] = []
        self.frequencies: list[int] = []
        self.has_gradients = False
        self.window_weights: dict[int, Any] = {}
        self.finish: Callable[[int, int, int], None] | None = None
        self.outputs: list[Any] = []
        self.predicted_indices: list[list[list[int] | None]] = []
        self.step_optimizers: list[Any] = []
        self.open_optimizers: set[int] = set()
        self.compiled: dict[str | int, Callable[..., Any]] = {}
        self.train_source: Source | None = None
        self.train_feed: Feed | None = None
        self.val_source: Source | None = None
        self.val_feeds: list[Feed] | None = None
        self.other_feeds: list[Feed] = []
        self.recomputed: list[nn.Module] = []
        self.val_check: ValCheck | None = None
        self.loaded_at = self.val_loaded_at = 0
        self.ended_with: tuple[float | int, list[float | int]] | None = None
        self.ended_loaders: tuple[Any, list[tuple[str | None, Any]]] = (None, [])
        self.epoch_start_steps = 0
        self.pass_begun = False
        self.resumed: dict[str, Any] | None = None
        self.resumed_between: dict[str, Any] | None = None

    def source(self, kind: str, given: Any) -> Source:
        """Return where the loaders of ``kind`` come from: the argument, the data module, or the module."""
        return Source(kind, given, (self.datamodule, self.module))

    def shared(self, *, measures: bool = False) -> dict[str, Any]:
        """Return what makes a feed one process's share, and seeds its batches.

        Args:
            measures: Whether the feed is for evaluation, which repeats no sample.
        """
        strategy = self.strategy
        uneven: Literal["stop", "pad", "join"] = self.flags.uneven
        seeding = {"rank": strategy.global_rank} if self.flags.exact else {}
        if strategy.world_size == 1:
            return seeding
        rank, world, shard = strategy.global_rank, strategy.world_size, None
        if measures:
            # a forward pass of a whole copy needs nobody else, so that a process may run out of batches
            uneven = "join" if not strategy.sharded else "pad" if uneven == "join" else uneven
        if self.flags.use_distributed_sampler:
            shard = EvaluationShare(rank, world, uneven) if measures else Shard(rank, world, uneven)
        alone = measures and uneven == "join"
        rounds = None if alone else Rounds(maximum_over(strategy.side_group), uneven, measures)
        return {"shard": shard, "agree": strategy.broadcast, "rounds": rounds, **seeding}

    def make_train_feed(self) -> None:
        """Ask for the training loader, unless it was asked for already."""
        if self.train_feed is None and self.train_source is not None:
            overfits = bool(self.flags.overfit_batches)
            loader, limit = self.train_source.load("fit", shuffle=not overfits), self.flags.limit_train_batches
            if isinstance(loader, CombinedLoader) and loader.mode == "sequential":
                raise MisconfigurationValueError(
                    '`trainer.fit()` does not support the `CombinedLoader(mode="sequential")` mode: training needs'
                    " loaders in step with each other."
                )
            if overfits:
                loader = unshuffled(loader)
            advise(loader, "train")
            self.train_feed = Feed(loader, limit, "limit_train_batches", self.preparation(0), **self.shared())
            if self.flags.exact == "refuse":
                refuse_replays(self.train_feed)
            self.loaded_at = self.progress.epoch

    def reload_train_feed(self) -> None:
        """Ask for the training loader again, if its turn has come."""
        every = self.flags.reload_dataloaders_every_n_epochs
        if every and self.train_feed is not None and self.progress.epoch - self.loaded_at >= every:
            self.train_feed.order.detach()
            self.train_feed = None
            self.make_train_feed()
            self.train_feed.order.attach()  # type: ignore[attr-defined]

    def reload_val_feeds(self) -> None:
        """Ask for the validation loaders, unless they were asked for and their turn has not come again."""
        every = self.flags.reload_dataloaders_every_n_epochs
        if self.val_feeds is None or (every and self.progress.epoch - self.val_loaded_at >= every):
            self.make_val_feeds()

    def make_val_feeds(self) -> None:
        """Ask for the validation loaders; without any batch there is no validation."""
        assert self.val_source is not None
        for feed in self.val_feeds or ():
            feed.order.detach()
        self.val_feeds = self.feeds(self.val_source, self.flags.limit_val_batches, "limit_val_batches")
        self.val_loaded_at = self.progress.epoch
        if not self.val_feeds:
            self.val_feeds, self.val_check = None, None

    def feeds(self, source: Source, limit: float | int, flag: str) -> list[Feed]:
        """Return a feed for each of several evaluation loaders."""
        if limit == 0:
            return []
        loaders = source.load(str(self.trainer.state.fn))
        if self.flags.overfit_batches and source.kind == "val":
            loaders = unshuffled(loaders, "val")
        advise(loaders, source.kind)
        named = named_loaders(loaders)
        shared = self.shared(measures=True)
        return [
            Feed(loader, limit, flag, self.preparation(i), name, **shared) for i, (name, loader) in enumerate(named)
        ]

    def preparation(self, dataloader_idx: int) -> Any:
        """Return what brings a batch to the device, or None if batches stay as they are."""
        hooks = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        found = []
        for hook in hooks:
            owner = (
                self.datamodule
                if self.datamodule is not None and overrides(self.datamodule, hook, DataHooks)
                else self.module
            )
            found.append((getattr(owner, hook), overrides(owner, hook, DataHooks)))
        precision = self.strategy.precision_plugin
        convert = precision.convert_input if precision.replaces("convert_input") else None
        own = convert is not None or any(own for _, own in found)
        if self.device.type == "cpu" and not own:
            return None
        streams = streams_of(self.device)
        if streams is not None and not own:
            return DeviceCopies(self.device, streams)
        device = self.device

        before, transfer, after = (self.hooks.scoped(hook, own) for hook, (own, _) in zip(hooks, found, strict=True))

        def prepare(batch: Any) -> Any:
            if convert is not None:
                batch = convert(batch)
            return after(transfer(before(batch, dataloader_idx), device, dataloader_idx), dataloader_idx)

        return prepare

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run backward for manual optimisation, with its hooks."""
        strategy, look = self.strategy, self.losses.look()
        if look is not None and look(loss):
            return
        loss = strategy.precision_plugin.pre_backward(loss)
        self.hooks.call("on_before_backward", loss)
        strategy.before_backward(loss)
        before = self.book.enter("backward")
        self.module.backward(loss, *args, **kwargs)
        self.book.leave(before)
        self.hooks.call("on_after_backward")
        self.open_optimizers.update(map(id, self.optimizers))

    def train_batches(self) -> float | int:
        """Return the batches of a training epoch, infinite if unknown; asks for the loader if nobody has yet."""
        if self.ended_with is not None:
            return self.ended_with[0]
        self.make_train_feed()
        return _count(self.train_feed)

    def val_batches(self) -> list[float | int]:
        """Return the batches of each validation loader that was asked for, infinite where unknown."""
        return self.ended_with[1] if self.ended_with is not None else [_count(f) for f in self.val_feeds or ()]

    def release(self) -> None:
        """Let go of everything large, so that nothing of a run outlives it: several runs in one process must fit."""
        for feed in (self.train_feed, *(self.val_feeds or ()), *self.other_feeds):
            if feed is not None:
                feed.order.detach()
        self.other_feeds = []
        self.ended_with = _count(self.train_feed), self.val_batches()
        self.ended_loaders = (
            self.train_feed.given if self.train_feed is not None else None,
            [(feed.name, feed.given) for feed in self.val_feeds or ()],
        )
        self.train_source, self.val_source, self.train_feed, self.val_feeds = None, None, None, None
        self.training = Results(training=True)
        self.book.close()


def _count(feed: Feed | None) -> float | int:
    return float("inf") if feed is None or feed.length is None else feed.length
