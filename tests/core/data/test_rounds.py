# SPDX-License-Identifier: Apache-2.0
"""Processes whose data end at different times begin the same number of steps, or say why they can not."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from threading import Barrier, Lock, Thread
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from leyden.core.data.combined import CombinedLoader
from leyden.core.data.feed import Feed
from leyden.core.data.rounds import REST, Rounds, may_be_uneven
from leyden.core.data.shard import Shard
from leyden.core.errors import MisconfigurationException, PossibleUserWarning


class Maximum:
    """Takes the maximum over threads that stand for processes."""

    def __init__(self, world: int) -> None:
        self.lock, self.barriers, self.values = Lock(), [], []
        self.world = world

    def of(self, rank):
        begun = iter(range(1000))

        def begin(flags):
            turn = next(begun)
            with self.lock:
                while len(self.values) <= turn:
                    self.values.append([])
                    self.barriers.append(Barrier(self.world))
                self.values[turn].append((flags, flags.clone()))

            class Pending:
                def wait(_):
                    self.barriers[turn].wait(20)
                    flags.copy_(torch.stack([value for _, value in self.values[turn]]).amax(0))

            return Pending()

        return begin


class Stream(IterableDataset):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self):
        return iter(range(self.size))


def together(feeds, uneven="stop", measures=False, limit: Any = 1.0, position=0, maximum: Any = None):
    """Return what each of several processes sees: its batches, and whether each was said to be the last."""
    maximum = maximum or Maximum(len(feeds))
    found: list[Any] = [None] * len(feeds)

    def run(rank):
        rounds = Rounds(maximum.of(rank), uneven, measures)
        feed = Feed(feeds[rank], limit, "limit_train_batches", shard=Shard(rank, len(feeds), uneven), rounds=rounds)
        try:
            found[rank] = [(batch, feed.is_last) for batch in feed.batches(position)]
        except Exception as error:
            found[rank] = error

    threads = [Thread(target=run, args=(rank,)) for rank in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def streams(*sizes):
    return [DataLoader(Stream(size), batch_size=None) for size in sizes]


def batches(found):
    for seen in found:
        assert [last for _, last in seen] == [False] * (len(seen) - 1) + [True] * bool(seen)
    return [[batch for batch, _ in seen] for seen in found]


def test_all_stop_where_the_first_has_no_batch():
    assert batches(together(streams(3, 5))) == [[0, 1, 2]] * 2
    assert batches(together(streams(4, 4))) == [[0, 1, 2, 3]] * 2
    assert batches(together(streams(0, 2))) == [[], []]
    assert batches(together(streams(1, 1, 4))) == [[0]] * 3


def test_those_that_are_out_repeat_their_own_until_all_are():
    assert batches(together(streams(2, 5), "pad")) == [[0, 1, 0, 1, 0], [0, 1, 2, 3, 4]]
    assert batches(together(streams(3, 3), "pad")) == [[0, 1, 2]] * 2
    once = iter([7, 8])
    assert batches(together([once, DataLoader(Stream(4), batch_size=None)], "pad")) == [[7, 8, 8, 8], [0, 1, 2, 3]]


def test_who_rests_gets_no_batch_while_others_have_one():
    assert batches(together(streams(2, 4), "join")) == [[0, 1, REST, REST], [0, 1, 2, 3]]
    assert batches(together(streams(0, 2), "join")) == [[REST, REST], [0, 1]]
    assert repr(REST) == "REST"


@pytest.mark.parametrize(
    ("uneven", "expected"),
    [
        ("stop", [[1, 2], [4, 5]]),
        ("pad", [[1, 2, 3], [4, 5, 4]]),
        ("join", [[1, 2, 3], [4, 5, REST]]),
    ],
)
def test_loaders_that_know_how_many_batches_they_have_agree_once(uneven, expected):
    maximum = Maximum(2)
    assert batches(together([[1, 2, 3], [4, 5]], uneven, maximum=maximum)) == expected
    assert len(maximum.values) == 1
    assert batches(together([[1, 2, 3], [4, 5]], uneven, position=1)) == [row[1:] for row in expected]
    # one that does not know takes all to the agreement round by round
    second = [4, 5, 5] if uneven == "pad" else expected[1]
    assert batches(together([[1, 2, 3], iter([4, 5])], uneven)) == [expected[0], second]


def test_a_loader_that_has_fewer_batches_than_it_said_is_told():
    class Liar(list):
        def __iter__(self):
            return iter([1, 2])

    error = together([Liar([1, 2, 3])])[0]
    assert isinstance(error, MisconfigurationException)
    assert "said it had 3 batches had 2" in str(error)


def test_a_collection_of_loaders_can_not_be_joined():
    with pytest.raises(MisconfigurationException, match="one training loader"):
        Feed({"a": [1], "b": [2]}, 1.0, "limit_train_batches", rounds=Rounds(Maximum(1).of(0), "join"))


def test_who_has_nothing_to_repeat_stops_all_with_an_error():
    for error in together(streams(0, 2), "pad"):
        assert isinstance(error, MisconfigurationException)
        assert "some process has none at all" in str(error)
    assert together(streams(0, 0), "pad") == [[], []]


def test_limits_end_all_at_once():
    assert batches(together(streams(9, 9), limit=2)) == [[0, 1]] * 2
    assert batches(together(streams(1, 9), "pad", limit=3)) == [[0, 0, 0], [0, 1, 2]]
    # a part of a number that only the process knows
    assert batches(together([_Sized(2), _Sized(8)], limit=0.5)) == [[0]] * 2


class _Sized(list):
    def __init__(self, size):
        super().__init__(range(size))


@pytest.mark.filterwarnings("ignore:.LY-D008")
def test_a_run_goes_on_in_the_middle():
    assert batches(together(streams(3, 5), position=2)) == [[2]] * 2
    assert batches(together(streams(2, 5), "pad", position=3)) == [[0, 1], [3, 4]]


def test_several_loaders_are_one_round():
    loaders = [CombinedLoader([DataLoader(Stream(size), batch_size=None)], "min_size") for size in (2, 3)]
    assert batches(together(loaders, "pad")) == [[[0], [1], [0]], [[0], [1], [2]]]


def test_repeated_results_are_spoken_of():
    maximum = Maximum(1)
    own = iter([1])

    def other_has_more(flags):
        pending = maximum.of(0)(flags)
        if len(told) < 2:
            flags[0] = 1
        told.append(flags)
        return type("Done", (), {"wait": lambda self: None})() if pending else None

    told: list[Any] = []
    rounds = Rounds(other_has_more, "pad", measures=True)
    with pytest.warns(PossibleUserWarning, match="different numbers of evaluation batches"):
        assert list(rounds.over(own, lambda: iter([1]))) == [(1, False), (1, True)]


def test_a_consumer_that_stops_early_leaves_nothing_underway():
    waited = []

    class Pending:
        def __init__(self, number):
            self.number = number

        def wait(self):
            waited.append(self.number)
            if self.number == 2:
                raise RuntimeError("the other process is gone")

    begun = iter(range(100))
    rounds = Rounds(lambda flags: Pending(next(begun)))
    given = rounds.over(iter(range(9)), lambda: iter(()))
    assert next(given) == (0, False)
    given.close()
    assert waited == [0, 1, 1, 2]


def test_only_loaders_that_may_be_uneven_are_kept_in_step():
    def refuse(flags):
        raise AssertionError("these are equally many on all processes")

    data = torch.arange(8)
    sampler = torch.utils.data.DistributedSampler(data, 2, 0)
    assert not may_be_uneven(DataLoader(data, 2))
    assert may_be_uneven(iter(()))
    for loader, count in ((DataLoader(data, 2), 2), (DataLoader(data, 2, sampler=sampler), 2)):
        feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(0, 2), rounds=Rounds(refuse))
        assert len(list(feed.batches())) == count
        feed.order.detach()
    with pytest.raises(ValueError, match="`uneven` must be 'stop', 'pad' or 'join'; got 'none'"):
        Rounds(refuse, "none")  # type: ignore[arg-type]


def process(rank: int, folder: str) -> None:
    """What each of two processes does: rounds of uneven streams, and a loader in the order of the first one's seed."""
    import torch.distributed as dist

    from leyden.core.data.rounds import maximum_over

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for uneven in ("stop", "pad"):
        rounds = Rounds(maximum_over(dist.group.WORLD), uneven)
        loader = DataLoader(Stream(4 + 3 * rank), batch_size=2)
        feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(rank, 2, uneven), rounds=rounds)
        found[uneven] = [(batch.tolist(), feed.is_last) for batch in feed.batches()]

    def agree(value):
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    torch.manual_seed(rank)
    loader = DataLoader(torch.arange(12), batch_size=2, shuffle=True)
    feed = Feed(loader, 1.0, "limit_train_batches", shard=Shard(rank, 2), agree=agree)
    found["shuffled"] = [[batch.tolist() for batch in feed.batches()] for _ in range(2)]
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(found, file)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_keep_step(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_rounds as t; t.process(int(sys.argv[2]), sys.argv[3])"
    )
    here = os.path.dirname(__file__)
    running = [
        subprocess.Popen([sys.executable, "-c", code, here, str(rank), str(tmp_path)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    first, second = (pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(2))
    assert first["stop"] == second["stop"] == [([0, 1], False), ([2, 3], True)]
    assert first["pad"] == [([0, 1], False), ([2, 3], False), ([0, 1], False), ([2, 3], True)]
    assert second["pad"] == [([0, 1], False), ([2, 3], False), ([4, 5], False), ([6], True)]
    for one, other in zip(first["shuffled"], second["shuffled"], strict=True):
        assert sorted(i for batch in one + other for i in batch) == list(range(12))
    assert first["shuffled"][0] != first["shuffled"][1]
