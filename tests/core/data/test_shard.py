# SPDX-License-Identifier: Apache-2.0
"""The share of a process: together all processes see the order that one would see, and each resumes in its own part."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from leyden.core.data.feed import Feed
from leyden.core.data.shard import Shard


def shuffled(workers: int = 0) -> Any:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(torch.arange(22), batch_size=2, shuffle=True, generator=generator, num_workers=workers)


def passed(feed: Feed, position: int = 0, start: Any = None) -> list[list[int]]:
    feed.order.attach()
    found = [batch.tolist() for batch in feed.batches(position, start)]
    feed.order.detach()
    return found


@given(batches=st.integers(0, 30), world=st.integers(1, 6), pad=st.booleans())
def test_shares_are_equally_many_and_hold_every_batch_that_a_full_round_has(batches, world, pad):
    uneven = "pad" if pad else "stop"
    shares = [list(Shard(rank, world, uneven).take(iter(range(batches)))) for rank in range(world)]
    assert {len(share) for share in shares} == {Shard(0, world, uneven).count(batches)}
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert together[:batches] == list(range(len(together[:batches])))
    assert not pad or set(together) == set(range(batches))


@given(samples=st.integers(0, 60), size=st.integers(1, 7), world=st.integers(1, 5), drop=st.booleans())
def test_the_last_samples_are_dealt_out_evenly(samples, size, world, drop):
    sampler = BatchSampler(SequentialSampler(range(samples)), size, drop)
    rest = samples % (size * world)
    for uneven in ("stop", "pad", "join"):
        shards = [Shard(rank, world, uneven) for rank in range(world)]
        shares = [list(shard.batches(sampler)) for shard in shards]
        counts = [len(share) for share in shares]
        assert [shard.length(sampler) for shard in shards] == counts
        assert max(counts) - min(counts) <= (uneven == "join")
        assert all(0 < len(batch) <= size for share in shares for batch in share)
        turns = [[i for batch in turn if batch for i in batch] for turn in zip_longest(*shares)]
        seen = [i for turn in turns for i in turn]
        if drop or (uneven == "stop" and rest < world):
            assert seen == list(range(samples - rest))
        elif uneven == "pad" and rest and rest < world:
            assert seen[:samples] == list(range(samples))
            assert len(seen) == samples - rest + world
        else:
            assert seen == list(range(samples))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("uneven", ["stop", "pad"])
def test_processes_together_see_the_order_of_one(workers, uneven):
    whole = passed(Feed(shuffled(), 1.0, "limit_train_batches"))
    feeds = [Feed(shuffled(workers), 1.0, "limit_train_batches", shard=Shard(r, 2, uneven)) for r in range(2)]
    shares = [passed(feed) for feed in feeds]
    assert [feed.length for feed in feeds] == [len(share) for share in shares] == [6, 6]
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert together == [*whole[:10], whole[10][:1], whole[10][1:]]


def test_a_share_goes_on_where_it_was_left():
    feed = Feed(shuffled(), 1.0, "limit_train_batches", shard=Shard(1, 2, "pad"))
    whole = passed(feed)
    other = Feed(shuffled(), 1.0, "limit_train_batches", shard=Shard(1, 2, "pad"))
    for position in range(6):
        assert passed(other, position, feed.order.start) == whole[position:]


def test_the_limit_counts_the_batches_of_a_share():
    feed = Feed(shuffled(), 3, "limit_train_batches", shard=Shard(0, 2))
    assert len(passed(feed)) == feed.length == 3


def test_streams_are_left_to_deal_themselves_out_and_several_loaders_are_shared():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(5))

    stream = Feed(DataLoader(Stream(), batch_size=2), 1.0, "limit_train_batches", shard=Shard(1, 2))
    assert passed(stream) == [[0, 1], [2, 3], [4]]
    both = Feed({"a": shuffled(), "b": shuffled()}, 1.0, "limit_train_batches", shard=Shard(0, 2))
    both.order.attach()
    assert len(list(both.batches())) == both.length == 6
    both.order.detach()


def test_a_share_that_can_not_be_is_refused():
    with pytest.raises(ValueError, match="`rank` must be from 0 to 1; got 2"):
        Shard(2, 2)
    with pytest.raises(ValueError, match="`uneven` must be 'stop', 'pad' or 'join'"):
        Shard(0, 2, "wait")
