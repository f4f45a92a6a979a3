# SPDX-License-Identifier: Apache-2.0
"""The share of a process: together all processes see the order that one would see, and each resumes in its own part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("uneven", ["stop", "pad"])
def test_processes_together_see_the_order_of_one(workers, uneven):
    whole = passed(Feed(shuffled(), 1.0, "limit_train_batches"))
    feeds = [Feed(shuffled(workers), 1.0, "limit_train_batches", shard=Shard(r, 2, uneven)) for r in range(2)]
    shares = [passed(feed) for feed in feeds]
    assert [feed.length for feed in feeds] == [len(share) for share in shares] == [5 if uneven == "stop" else 6] * 2
    together = [batch for turn in zip(*shares, strict=True) for batch in turn]
    assert together[:11] == whole[: len(together)]


def test_a_share_goes_on_where_it_was_left():
    feed = Feed(shuffled(), 1.0, "limit_train_batches", shard=Shard(1, 2, "pad"))
    whole = passed(feed)
    other = Feed(shuffled(), 1.0, "limit_train_batches", shard=Shard(1, 2, "pad"))
    for position in range(7):
        assert passed(other, position, feed.order.start) == whole[position:]


def test_the_limit_counts_the_batches_of_a_share():
    feed = Feed(shuffled(), 3, "limit_train_batches", shard=Shard(0, 2))
    assert len(passed(feed)) == feed.length == 3


def test_data_without_a_sampler_and_several_loaders_are_shared_too():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(9))

    stream = Feed(DataLoader(Stream(), batch_size=2), 1.0, "limit_train_batches", shard=Shard(1, 2))
    assert passed(stream) == [[2, 3], [6, 7]]
    both = Feed({"a": shuffled(), "b": shuffled()}, 1.0, "limit_train_batches", shard=Shard(0, 2))
    both.order.attach()
    assert len(list(both.batches())) == both.length == 5
    both.order.detach()


def test_a_share_that_can_not_be_is_refused():
    with pytest.raises(ValueError, match="`rank` must be from 0 to 1; got 2"):
        Shard(2, 2)
    with pytest.raises(ValueError, match="`uneven` must be 'stop' or 'pad'"):
        Shard(0, 2, "join")
