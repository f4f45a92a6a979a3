"""Several loaders as one: modes, lengths, shapes, and feeds that train from them and go on exactly."""

from collections import OrderedDict, defaultdict, namedtuple
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from leyden.core.data.combined import CombinedLoader
from leyden.core.data.feed import Feed
from leyden.core.data.source import named_loaders
from leyden.core.errors import MisconfigurationException

Pair = namedtuple("Pair", "left right")


class Unsized:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


def in_step(sizes, mode):
    """Say by arithmetic what loaders over ``range(n)`` give in step."""
    total = min(sizes) if mode == "min_size" else max(sizes)
    if mode == "max_size_cycle" and 0 in sizes:
        # nothing to begin again with
        return []
    if mode == "max_size":
        return [[k if k < n else None for n in sizes] for k in range(total)]
    return [[k % n for n in sizes] for k in range(total)]


SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@given(sizes=SIZES, mode=st.sampled_from(["min_size", "max_size_cycle", "max_size"]), unsized=st.booleans())
def test_loaders_in_step(sizes, mode, unsized):
    loader = CombinedLoader([Unsized(n) if unsized else range(n) for n in sizes], mode)
    expected = in_step(sizes, mode)
    assert list(loader) == [(batch, i, 0) for i, batch in enumerate(expected)]
    assert list(loader) == [(batch, i, 0) for i, batch in enumerate(expected)]


@given(sizes=SIZES, limit=st.none() | st.integers(0, 4))
def test_loaders_one_after_the_other(sizes, limit):
    loader = CombinedLoader([range(n) for n in sizes], "sequential")
    loader.limits = limit
    expected = [(k, k, i) for i, n in enumerate(sizes) for k in range(n if limit is None else min(n, limit))]
    assert list(loader) == expected
    assert len(loader) == len(expected)


@pytest.mark.parametrize(
    ("mode", "length"), [("min_size", 2), ("max_size_cycle", 5), ("max_size", 5), ("sequential", 10)]
)
def test_lengths(mode, length):
    assert len(iter(CombinedLoader([range(2), range(5), range(3)], mode))) == length


@pytest.mark.parametrize(
    ("mode", "length"), [("min_size", 1), ("max_size_cycle", 3), ("max_size", 3), ("sequential", 6)]
)
def test_limits_count_for_each_loader(mode, length):
    loader = CombinedLoader([range(2), range(5), Unsized(9)], mode)
    loader.limits = [1, 3, 2]
    assert len(iter(loader)) == length


def test_the_shapes_of_collections():
    tree = {
        "a": [range(2), (range(2), Pair(range(2), range(2)))],
        "b": OrderedDict(z=range(2), a=range(2)),
        "c": defaultdict(list, x=range(2)),
    }
    batch, _, _ = next(iter(CombinedLoader(tree, "max_size")))
    assert batch == {"a": [0, (0, Pair(0, 0))], "b": OrderedDict(z=0, a=0), "c": {"x": 0}}
    assert [type(batch["a"][1][1]), type(batch["b"]), type(batch["c"])] == [Pair, OrderedDict, defaultdict]
    assert tree["c"]["x"] == range(2)


def test_a_single_loader_and_lists_of_numbers_are_loaders():
    assert list(CombinedLoader(range(2))) == [(0, 0, 0), (1, 1, 0)]
    assert CombinedLoader([[1, 2], [3]]).flattened == [[1, 2], [3]]
    assert list(CombinedLoader([], "max_size_cycle")) == []
    assert list(CombinedLoader({"a": [], "b": range(3)}, "max_size")) == [({"a": None, "b": k}, k, 0) for k in range(3)]


def test_samplers_and_loaders_can_be_reached_and_replaced():
    first = DataLoader(range(4))
    loader = CombinedLoader({"a": first, "b": [range(3)]})
    assert loader.sampler == {"a": first.sampler, "b": [None]}
    assert loader.batch_sampler == {"a": first.batch_sampler, "b": [None]}
    loader.flattened = [range(1), range(2)]
    assert loader.iterables == {"a": range(1), "b": [range(2)]}
    assert loader.mode == "min_size"


def test_wrong_use_is_refused():
    loader = CombinedLoader([range(2), Unsized(3)], "max_size")
    with pytest.raises(ValueError, match="Unsupported mode 'longest'"):
        CombinedLoader([], "longest")
    with pytest.raises(RuntimeError, match=r"iter\(combined_loader\)"):
        len(loader)
    with pytest.raises(RuntimeError, match=r"iter\(combined_loader\)"):
        next(loader)
    with pytest.raises(TypeError, match="length is not known"):
        len(iter(loader))
    with pytest.raises(ValueError, match="`limits` got 1 values for 2 loaders"):
        loader.limits = [1]
    with pytest.raises(ValueError, match="`flattened` got 3 values for 2 loaders"):
        loader.flattened = [range(1)] * 3


def test_reset_ends_the_iteration_and_persistent_workers():
    inner = DataLoader(range(4), num_workers=1, persistent_workers=True)
    loader = CombinedLoader([inner])
    next(iter(loader))
    loader.reset()
    assert inner._iterator is None
    with pytest.raises(RuntimeError):
        next(loader)


def shuffled(n, offset=0, workers=0):
    return DataLoader(torch.arange(offset, offset + n), 2, shuffle=True, num_workers=workers)


def values(tree):
    if isinstance(tree, torch.Tensor):
        return tree.tolist()
    if isinstance(tree, dict):
        return {key: values(value) for key, value in tree.items()}
    return [values(value) for value in tree] if isinstance(tree, list) else tree


COLLECTIONS = {
    "cycle": lambda: {"long": shuffled(14), "short": [shuffled(4, 100), shuffled(6, 200)]},
    "cycle with a loader without length": lambda: [shuffled(4), Unsized(7)],
    "cycle with plain iterables": lambda: [shuffled(14), range(3)],
    "workers": lambda: [shuffled(14, workers=1), shuffled(4, 100)],
    "min": lambda: CombinedLoader([shuffled(14), shuffled(12, 100)], "min_size"),
    "max": lambda: CombinedLoader([shuffled(14), shuffled(4, 100)], "max_size"),
    "sequential": lambda: CombinedLoader([shuffled(4), shuffled(6, 100), shuffled(8, 200)], "sequential"),
    "sequential without length": lambda: CombinedLoader([shuffled(4), Unsized(2), shuffled(6, 100)], "sequential"),
}


@pytest.mark.filterwarnings("ignore:.LY-D008")
@pytest.mark.parametrize("kind", COLLECTIONS)
def test_training_goes_on_exactly_from_every_position(kind):
    torch.manual_seed(3)
    feed = Feed(COLLECTIONS[kind](), 1.0, "limit")
    feed.order.attach()
    list(feed.batches())
    whole, states = [], []
    for batch in feed.batches():
        whole.append(values(batch))
        states.append((feed.order.start, torch.get_rng_state()))
    feed.order.detach()
    for position, (start, outside) in enumerate(states[:-1], 1):
        torch.manual_seed(99)
        other = Feed(COLLECTIONS[kind](), 1.0, "limit")
        other.order.attach()
        rest = other.batches(position, start)
        torch.set_rng_state(outside)
        going_on = []
        for at, batch in enumerate(rest, position):
            going_on.append(values(batch))
            again = other.order.start
            assert [e and e["at"] for e in again] == [e and e["at"] for e in states[at][0]]
        other.order.detach()
        assert going_on == whole[position:]
        assert other.is_last


def test_a_recorded_order_that_does_not_fit_is_not_used():
    one = Feed(DataLoader(range(6), 2), 1.0, "limit")
    several = Feed([DataLoader(range(6), 2), range(2)], 1.0, "limit")
    assert [b.tolist() for b in one.batches(1, [{"at": 0, "start": None}])] == [[2, 3], [4, 5]]
    for wrong in ({"torch": None}, [None], [None, None], [{"at": 9, "start": None}] * 2, None):
        assert values(list(several.batches(1, wrong))) == [[[2, 3], 1], [[4, 5], 0]]


def test_the_same_loader_twice_is_gone_through():
    torch.manual_seed(0)
    loader = DataLoader(range(6), 2)
    feed = Feed([loader, loader], 1.0, "limit")
    feed.order.attach()
    whole = values(list(feed.batches()))
    assert values(list(feed.batches(1, feed.order.start))) == whole[1:]


def test_replaying_several_loaders_reads_no_data():
    class Counting(torch.utils.data.Dataset):
        def __init__(self, n):
            self.n, self.reads = n, 0

        def __len__(self):
            return self.n

        def __getitem__(self, i):
            self.reads += 1
            return i

    data = Counting(10), Counting(4)
    feed = Feed([DataLoader(d, 2, shuffle=True) for d in data], 1.0, "limit")
    feed.order.attach()
    list(islice(feed.batches(), 4))
    start = feed.order.start
    for d in data:
        d.reads = 0
    next(feed.batches(4, start))
    feed.order.detach()
    # the short one begins its third pass here
    assert [d.reads for d in data] == [2, 2]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    limit=st.sampled_from([0, 1, 3, 50, 1.0]),
    mode=st.sampled_from(["min_size", "max_size_cycle", "max_size", "sequential"]),
    unsized=st.booleans(),
)
def test_feeds_count_and_limit_several_loaders(sizes, limit, mode, unsized):
    loaders = [Unsized(n) if unsized and i == 0 else range(n) for i, n in enumerate(sizes)]
    feed = Feed(CombinedLoader(loaders, mode), limit, "limit")
    taken = sizes if limit == 1.0 and isinstance(limit, float) else [min(n, limit) for n in sizes]
    total = {"min_size": min, "sequential": sum}.get(mode, max)(taken)
    last = [feed.is_last for _ in feed.batches()]
    assert last == [False] * (total - 1) + [True] * (total > 0)
    if not unsized:
        assert (feed.length, feed.available) == (total, {"min_size": min, "sequential": sum}.get(mode, max)(sizes))


def test_fractions_count_for_each_loader():
    assert Feed([range(10), range(4)], 0.5, "limit").length == 5
    assert Feed(CombinedLoader([range(10), range(4)], "min_size"), 0.5, "limit").length == 2
    with pytest.raises(MisconfigurationException, match=r"Try at least `limit=0\.25`"):
        Feed([range(10), range(4)], 0.1, "limit")
    with pytest.raises(MisconfigurationException, match=r"must be `1\.0` or an int"):
        Feed([range(10), Unsized(3)], 0.5, "limit")


def test_batches_are_prepared_whole_and_the_collection_is_kept():
    given = {"a": range(2), "b": range(2)}
    feed = Feed(given, 1.0, "limit", prepare=lambda batch: sum(batch.values()))
    assert list(feed.batches()) == [0, 2]
    assert feed.given is given


def test_every_sampler_hears_of_the_epoch():
    samplers = [DistributedSampler(range(4), 1, 0) for _ in range(3)]
    one, *two = [DataLoader(range(4), sampler=sampler) for sampler in samplers]
    Feed(one, 1.0, "limit").set_epoch(4)
    Feed({"a": two}, 1.0, "limit").set_epoch(5)
    assert [sampler.epoch for sampler in samplers] == [4, 5, 5]


def test_evaluation_takes_collections_apart():
    a, b, c = range(1), range(2), range(3)
    assert named_loaders([a, [b, c]]) == [(None, a), (None, b), (None, c)]
    assert named_loaders({"x": a, "y": {"z": b}, "w": [c]}) == [("x", a), ("y/z", b), ("w", c)]
    assert named_loaders(CombinedLoader({"x": a, "y": b}, "sequential")) == [("x", a), ("y", b)]
    assert named_loaders(CombinedLoader([[1, 2], c], "sequential")) == [(None, [1, 2]), (None, c)]
    whole = CombinedLoader([a, b], "min_size")
    assert named_loaders(whole) == [(None, whole)]
