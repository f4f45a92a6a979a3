# SPDX-License-Identifier: Apache-2.0
"""Results are measured on every sample exactly once, in equally many batches on every process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from leyden.core.data.advice import advise
from leyden.core.data.evaluation_share import EvaluationShare
from leyden.core.data.feed import Feed
from leyden.core.errors import PossibleUserWarning


def parts(sampler: Any, world: int, uneven: str = "join") -> list[list[list[int]]]:
    shares = [EvaluationShare(rank, world, uneven) for rank in range(world)]
    found = [list(share.batches(sampler)) for share in shares]
    assert [share.length(sampler) for share in shares] == [len(batches) for batches in found]
    return found


@given(samples=st.integers(0, 60), size=st.integers(1, 9), world=st.integers(1, 7), drop=st.booleans())
def test_each_sample_is_evaluated_once_by_processes_that_keep_step(samples, size, world, drop):
    sampler = BatchSampler(SequentialSampler(range(samples)), size, drop)
    found = parts(sampler, world)
    alone = [index for batch in sampler for index in batch]
    assert [index for batches in found for batch in batches for index in batch] == alone
    sizes = [sum(len(batch) for batch in batches) for batches in found]
    assert max(sizes) - min(sizes) <= 1
    assert all(0 < len(batch) <= size for batches in found for batch in batches)
    counts = {len(batches) for batches in found}
    if (len(alone) >= world and size > 1) or len(alone) % world == 0:
        assert counts == {-(-max(sizes) // size)}
    else:
        assert max(counts) - min(counts) <= 1


@given(samples=st.integers(2, 30), world=st.integers(2, 4), size=st.integers(2, 5), pad=st.booleans())
def test_numbers_that_can_be_equal_are_so_whatever_uneven_says(samples, world, size, pad):
    sampler = BatchSampler(SequentialSampler(range(samples)), size, False)
    if samples >= world:
        assert parts(sampler, world, "pad" if pad else "stop") == parts(sampler, world)


def counted(found):
    return sorted(index for batches in found for batch in batches for index in batch)


@pytest.mark.parametrize(
    "sampler",
    [
        BatchSampler(SequentialSampler(range(3)), 1, False),
        [[0], [1], [2]],
        type("Buckets", (BatchSampler,), {})(SequentialSampler(range(3)), 1, False),
    ],
    ids=["single samples", "no batch sampler", "own batch sampler"],
)
def test_batches_that_do_not_go_round(sampler):
    assert counted(parts(sampler, 2)) == [0, 1, 2]
    with pytest.warns(PossibleUserWarning, match="hold some samples more than once"):
        assert counted(parts(sampler, 2, "pad")) == [0, 0, 1, 2]


def test_batches_that_are_left_out_are_spoken_of():
    sampler = BatchSampler(SequentialSampler(range(3)), 4, False)
    with pytest.warns(PossibleUserWarning, match="leave some samples out"):
        assert counted(parts(sampler, 4, "stop")) == []
    assert counted(parts(sampler, 4)) == [0, 1, 2]
    assert counted(parts(sampler, 3, "pad")) == [0, 1, 2]


def test_a_sampler_without_a_length_is_shared_by_the_batch():
    assert counted(parts_of_unsized := [list(EvaluationShare(r, 2).batches(Endless())) for r in range(2)]) == list(
        range(5)
    )
    assert parts_of_unsized[0] == [[0, 1], [4]]
    feed = Feed(DataLoader(range(5), batch_sampler=Endless()), 1.0, "limit_val_batches", shard=EvaluationShare(0, 2))
    assert feed.length is None
    assert [(batch.tolist(), feed.is_last) for batch in feed.batches()] == [([0, 1], False), ([4], True)]
    feed.order.detach()


class Endless:
    def __iter__(self):
        return iter([[0, 1], [2, 3], [4]])


def feeds(limit=1.0, world=2, **arguments):
    made = [
        Feed(DataLoader(torch.arange(19), 4, **arguments), limit, "limit_val_batches", shard=EvaluationShare(r, world))
        for r in range(world)
    ]
    for feed in made:
        feed.order.attach()
    return made


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_each_process_its_part(workers):
    found = [[batch.tolist() for batch in feed.batches()] for feed in feeds(num_workers=workers)]
    assert found == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]], [[10, 11, 12, 13], [14, 15, 16, 17], [18]]]


def test_limits_count_the_batches_of_a_process():
    assert [feed.length for feed in feeds(2)] == [2, 2]
    assert [feed.length for feed in feeds(0.67)] == [2, 2]
    first = feeds(2)[1].first(1, "num_sanity_val_steps")
    assert [batch.tolist() for batch in first.batches()] == [[10, 11, 12, 13]]


def test_parts_of_a_shuffled_loader_fit_together():
    said: list[Any] = []

    def agree(value):
        said.append(value)
        return said[0]

    found = []
    for rank in range(3):
        torch.manual_seed(rank)
        loader = DataLoader(torch.arange(19), 4, shuffle=True)
        feed = Feed(loader, 1.0, "limit_val_batches", shard=EvaluationShare(rank, 3), agree=agree)
        found.append([batch.tolist() for batch in feed.batches()])
        feed.order.detach()
    assert counted(found) == list(range(19))
    assert {len(batches) for batches in found} == {2}
    assert len(said) == 3


def test_the_places_of_a_process_s_samples_are_noted():
    from collections import deque

    for rank, feed in enumerate(feeds(shuffle=False)):
        feed.order.drawn = deque()
        batches = [batch.tolist() for batch in feed.batches()]
        assert list(feed.order.drawn) == batches
        assert batches[0][0] == 10 * rank


def test_only_a_sampler_that_repeats_is_advised_against():
    data = range(5)
    with pytest.warns(
        PossibleUserWarning, match=r"`trainer.test\(\)` counts them again.*`Trainer\(devices=1, num_nodes=1\)`"
    ):
        advise(DataLoader(data, sampler=DistributedSampler(data, 2, 0)), "test")
    advise(DataLoader(data, sampler=DistributedSampler(data, 2, 0)), "train")
    advise(DataLoader(data, sampler=DistributedSampler(data, 2, 0, drop_last=True)), "val")
    advise(DataLoader(data, sampler=DistributedSampler(data, 5, 0)), "val")


def test_what_evaluation_shares_take_is_checked():
    with pytest.raises(ValueError, match="`rank` must be from 0 to 1; got 2"):
        EvaluationShare(2, 2)
    assert EvaluationShare(0, 2).uneven == "join"
    sampler = BatchSampler(RandomSampler(range(4)), 3, False)
    assert [EvaluationShare(rank, 2).length(sampler) for rank in range(2)] == [1, 1]
