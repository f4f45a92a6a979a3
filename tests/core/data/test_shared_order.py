# SPDX-License-Identifier: Apache-2.0
"""Processes draw one order however differently they have drawn before, and go on in it exactly."""

from __future__ import annotations

import random
from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    WeightedRandomSampler,
)

import leyden.core as L
from leyden.core.data.combined import CombinedLoader
from leyden.core.data.feed import Feed
from leyden.core.data.shard import Shard
from leyden.core.data.unshuffled import unshuffled
from leyden.core.errors import PossibleUserWarning

ROWS = torch.arange(44)


class Numbers(Dataset):
    """Every sample draws from the process's generator, as augmentation does."""

    def __init__(self, size: int = 44) -> None:
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        torch.rand(1)
        return index


class Lazy(Sampler):
    """Draws from the process's generators anew for every sample."""

    def __len__(self):
        return 44

    def __iter__(self):
        left = list(range(44))
        while left:
            yield left.pop(random.randrange(len(left)))


class Buckets(Sampler):
    """A batch sampler of the user's own, in the style that shuffles in `__iter__` and returns at once."""

    def __len__(self):
        return 11

    def __iter__(self):
        return iter([list(range(i * 4, i * 4 + 4)) for i in torch.randperm(11).tolist()])


LOADERS = {
    "shuffle": lambda: DataLoader(Numbers(), batch_size=4, shuffle=True),
    "generator": lambda: DataLoader(Numbers(), batch_size=4, shuffle=True, generator=torch.Generator()),
    "weighted": lambda: DataLoader(Numbers(), 4, sampler=WeightedRandomSampler([1.0] * 44, 44, replacement=False)),
    "lazy": lambda: DataLoader(Numbers(), batch_size=4, sampler=Lazy()),
    "buckets": lambda: DataLoader(Numbers(), batch_sampler=Buckets()),
    "single": lambda: DataLoader(Numbers(), batch_size=None, shuffle=True),
    "workers": lambda: DataLoader(Numbers(), 4, shuffle=True, num_workers=1, persistent_workers=True),
}


class Ranks:
    """Processes that take their passes one after the other: what the first said is kept for the others."""

    def __init__(self, make: Any, world: int = 2, uneven: str = "pad", seeds: bool = True) -> None:
        self.said: list[Any] = []
        self.heard = [0] * world
        self.feeds = [
            Feed(make(), 1.0, "limit_train_batches", shard=Shard(r, world, uneven), agree=self.agree(r))
            for r in range(world)
        ]
        self.states = []
        for rank in range(world):
            L.seed_everything(rank if seeds else 7, verbose=False)
            self.states.append((random.getstate(), torch.get_rng_state()))

    def agree(self, rank):
        def agree(value):
            if rank == 0:
                self.said.append(deepcopy(value))
            self.heard[rank] += 1
            return deepcopy(self.said[self.heard[rank] - 1])

        return agree

    def run(self, rank, position=0, start=None):
        feed = self.feeds[rank]
        random.setstate(self.states[rank][0])
        torch.set_rng_state(self.states[rank][1])
        feed.order.attach()
        found = [flat(batch) for batch in feed.batches(position, start)]
        self.states[rank] = random.getstate(), torch.get_rng_state()
        return found

    def end(self):
        for feed in self.feeds:
            feed.order.detach()
        # persistent workers end at once only where nothing refers back to their loader
        self.feeds.clear()

    def epoch(self):
        return [self.run(rank) for rank in range(len(self.feeds))]


def flat(batch):
    return batch.reshape(-1).tolist() if isinstance(batch, torch.Tensor) else [batch]


@pytest.fixture(autouse=True)
def _seeds(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


@pytest.mark.parametrize("kind", LOADERS)
def test_processes_with_different_generators_share_one_order(kind):
    ranks = Ranks(LOADERS[kind])
    epochs = []
    for _ in range(2):
        first, second = ranks.epoch()
        turns = [batch for turn in zip(first, second, strict=True) for batch in turn]
        seen = Counter(index for batch in turns for index in batch)
        assert set(seen) == set(range(44))
        # eleven batches of the user's own do not go round two processes: one is repeated
        assert sum(seen.values()) - 44 == (4 if kind == "buckets" else 0)
        epochs.append(turns)
    assert epochs[0] != epochs[1]
    assert ranks.heard == [2, 2]
    ranks.end()


@pytest.mark.parametrize("kind", LOADERS)
def test_every_process_goes_on_in_the_middle_of_the_order(kind):
    ranks = Ranks(LOADERS[kind])
    whole = ranks.epoch()
    start = ranks.feeds[0].order.start
    other = Ranks(LOADERS[kind])
    for rank in range(2):
        for position in (1, 4):
            assert other.run(rank, position, start) == whole[rank][position:]
    assert other.heard == [0, 0]
    ranks.end()
    other.end()


@pytest.mark.parametrize("kind", ["shuffle", "generator"])
def test_processes_that_are_seeded_alike_see_what_one_sees(kind):
    def make():
        generator = torch.Generator().manual_seed(3) if kind == "generator" else None
        return DataLoader(torch.arange(48), batch_size=4, shuffle=True, generator=generator)

    L.seed_everything(7, verbose=False)
    one = Feed(make(), 1.0, "limit_train_batches")
    one.order.attach()
    whole = [[flat(batch) for batch in one.batches()] for _ in range(2)]
    ranks = Ranks(make, uneven="join", seeds=False)
    for expected in whole:
        first, second = ranks.epoch()
        assert first == expected[::2]
        assert second == expected[1::2]


def test_drawing_together_leaves_no_trace_in_a_process():
    ranks = Ranks(LOADERS["shuffle"])
    alone = Ranks(lambda: DataLoader(Numbers(), batch_size=4), seeds=True)
    shared = ranks.epoch(), ranks.states
    assert len(alone.epoch()[1]) == len(shared[0][1])
    # besides the seeds that are drawn when a pass begins
    assert ranks.states[1][0] == alone.states[1][0]
    assert alone.heard == [0, 0], "an order that is always the same needs no agreement"


def test_a_loader_that_drops_its_last_batch_drops_the_last_round():
    for rank in range(2):
        loader = DataLoader(ROWS, batch_size=4, drop_last=True)
        feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(rank, 2, "pad"))
        assert feed.length == len(list(feed.batches())) == 5
        feed.order.detach()


def test_the_length_that_a_user_sees_is_that_of_the_process():
    loader = DataLoader(ROWS, batch_size=4)
    feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(1, 2, "pad"))
    feed.order.attach()
    assert len(loader) == 6
    assert [batch.tolist()[0] for batch in loader] == [4, 12, 20, 28, 36, 42]
    assert feed.order.start is None, "what user code goes through is not the pass of the order"
    feed.order.detach()
    assert len(loader) == 11
    assert type(loader.batch_sampler) is BatchSampler


def test_one_loader_may_be_trained_and_validated_on():
    loader = DataLoader(ROWS, batch_size=4, shuffle=True)
    train = Feed(loader, 1.0, "limit_train_batches", shard=Shard(0, 2))
    val = Feed(loader, 1.0, "limit_val_batches", shard=Shard(1, 2, "join"))
    train.order.attach()
    val.order.attach()
    batches = train.batches()
    before = [next(batches).tolist()]
    start = train.order.start
    assert len(list(val.batches())) == 6
    assert train.order.start is start
    whole = before + [batch.tolist() for batch in batches]
    assert [batch.tolist() for batch in train.batches(1, start)] == whole[1:]
    val.order.detach()
    assert [batch.tolist() for batch in train.batches(1, start)] == whole[1:]
    train.order.detach()
    assert type(loader.batch_sampler) is BatchSampler


class Own(DataLoader):
    """A loader with arguments of its own, whose batches are changed on their way."""

    def __init__(self, size):
        super().__init__(ROWS, batch_size=size, shuffle=True)

    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 100


def test_derived_loaders_are_shared_as_they_are():
    first, second = Ranks(lambda: Own(4), uneven="join").epoch()
    assert sorted(i for batch in first + second for i in batch) == [i + 100 for i in range(44)]


def test_a_loader_that_begins_only_once_is_reported():
    class Once(DataLoader):
        def __init__(self):
            super().__init__(ROWS, batch_size=4)
            self.passed = super().__iter__()

        def __iter__(self):
            yield from self.passed

    feed = Feed(Once(), 1.0, "limit_train_batches", shard=Shard(0, 2))
    with pytest.warns(PossibleUserWarning, match="did not ask its sampler for a new pass"):
        list(feed.batches())


def test_samplers_and_streams_that_deal_themselves_out_are_left_alone():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    class Batches(Buckets):
        num_replicas, rank = 2, 0

    sampler = DistributedSampler(ROWS, num_replicas=2, rank=1, shuffle=False)
    for loader, length in (
        (DataLoader(ROWS, 4, sampler=sampler), 6),
        (DataLoader(ROWS, batch_sampler=BatchSampler(sampler, 4, False)), 6),
        (DataLoader(Numbers(), batch_sampler=Batches()), 11),
        (DataLoader(Stream(), batch_size=None), 3),
        ([1, 2, 3], 3),
    ):
        feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(1, 2), agree=pytest.fail)
        feed.order.attach()
        assert len(list(feed.batches())) == length
        feed.order.detach()


def test_several_loaders_agree_once_and_begin_again_alike():
    def make():
        # on every process another number of rounds: a process may begin a loader again while no other does
        return CombinedLoader(
            {"a": LOADERS["shuffle"](), "b": DataLoader(Numbers(12), 2, shuffle=True)}, "max_size_cycle"
        )

    ranks = Ranks(make, uneven="join")
    found = []
    for rank in range(2):
        ranks.feeds[rank].order.attach()
        found.append(list(ranks.feeds[rank].batches()))
    assert ranks.heard == [1, 1]
    for key, numbers, rounds in (("a", 44, 6), ("b", 12, 3)):
        items = [batch[key].tolist() for part in found for batch in part[:rounds]]
        assert set(range(numbers)) == {i for batch in items for i in batch}
    again = [batch["b"].tolist() for part in found for batch in part[3:5]]
    assert len({i for batch in again for i in batch}) == 8, "the second pass is one order too"
    whole = found[1]
    start = ranks.feeds[1].order.start
    assert [b["a"].tolist() for b in ranks.feeds[1].batches(4, start)] == [b["a"].tolist() for b in whole[4:]]


def test_a_loader_that_is_given_twice_is_shared_in_each_place():
    loader = DataLoader(ROWS, batch_size=4)
    feed = Feed([loader, loader], 1.0, "limit_train_batches", shard=Shard(1, 2))
    assert feed.length == 6
    assert [[part.tolist()[0] for part in item] for item in feed.batches()] == [[i, i] for i in (4, 12, 20, 28, 36, 42)]
    feed.order.detach()


def test_overfitting_keeps_a_sampler_of_one_process_to_it():
    sampler = DistributedSampler(ROWS, num_replicas=2, rank=1, shuffle=True)
    with pytest.warns(PossibleUserWarning, match="requested to overfit"):
        plain = unshuffled(DataLoader(ROWS, batch_size=4, sampler=sampler))
    assert next(batch.tolist() for batch in plain) == [1, 3, 5, 7]
    assert sampler.shuffle
    still = DataLoader(ROWS, batch_size=4, sampler=DistributedSampler(ROWS, num_replicas=2, rank=1, shuffle=False))
    assert unshuffled(still) is still
    shared = unshuffled(DataLoader(ROWS, batch_size=4, shuffle=True))
    feed = Feed(shared, 2, "limit_train_batches", shard=Shard(1, 2))
    assert [batch.tolist() for batch in feed.batches()] == [[4, 5, 6, 7], [12, 13, 14, 15]]
