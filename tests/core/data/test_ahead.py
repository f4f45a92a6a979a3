"""On an accelerator, the copy of a batch runs beside the step: shown with streams that only take notes."""

from collections import namedtuple
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

from leyden.core.data.ahead import DeviceCopies, streams_of
from leyden.core.data.feed import Feed

DEVICE = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


class Notes:
    """Stands for `torch.cuda`: writes down which stream is current when a tensor is copied, and who waits for whom."""

    def __init__(self):
        self.lines, self.current = [], "compute"

    def Stream(self, device):
        return "side"

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def current_stream(self, device):
        notes = self

        class Computing:
            def wait_stream(self, other):
                notes.lines.append(f"compute waits for {other}")

        return Computing()


class Noted:
    """What writes down where it is copied and for whom it is kept, as a tensor on an accelerator would."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def to(self, device):
        self.notes.lines.append(f"{self.name} on {self.notes.current}")
        return self

    def record_stream(self, stream):
        self.notes.lines.append(f"keep {self.name}")


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def copies(notes):
    return DeviceCopies(DEVICE, notes)


def test_a_batch_is_copied_beside_and_kept_until_the_step_is_done_with_it(notes, copies):
    copies(Noted("a", notes))
    assert notes.lines == ["a on side", "compute waits for side", "keep a"]


@dataclass
class Sample:
    x: object
    name: str = "n"


@pytest.mark.parametrize(
    "shape",
    [lambda x: [x], lambda x: (x, "text"), lambda x: {"x": x, 1: 2}, lambda x: Pair(x, None), Sample],
    ids=["list", "tuple", "dict", "named tuple", "dataclass"],
)
def test_every_part_of_a_nested_batch_is_kept(notes, copies, shape):
    copies(shape(Noted("a", notes)))
    assert notes.lines == ["a on side", "compute waits for side", "keep a"]


def test_a_type_whose_tensors_are_not_known_is_copied_where_it_is_used(notes, copies):
    class Graph:
        def to(self, device):
            notes.lines.append(f"graph on {notes.current}")
            return self

    copies([Graph(), torch.zeros(1)])
    assert notes.lines == ["graph on compute"]


def test_a_packed_sequence_goes_as_a_whole(copies):
    moved = copies(pack_sequence([torch.ones(2), torch.ones(1)]))
    assert moved.data.tolist() == [1, 1, 1]


def test_the_next_copy_begins_before_the_step_of_the_batch_ahead(notes, copies):
    for batch in copies.ahead((Noted(name, notes) for name in "abc"), None):
        notes.lines.append(f"step {batch.name}")
    order = [line for line in notes.lines if "waits" not in line and "keep" not in line]
    assert order == ["a on side", "b on side", "step a", "c on side", "step b", "step c"]


def test_no_batch_is_fetched_beyond_the_last(notes, copies):
    source = iter([Noted(n, notes) for n in "abc"])
    assert [batch.name for batch in copies.ahead(source, 2)] == ["a", "b"]
    assert next(source).name == "c"
    assert list(copies.ahead(iter(()), 2)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(0, False), (1, True)])
def test_only_loaders_with_workers_are_asked_ahead(copies, workers, ahead):
    loader = DataLoader(torch.arange(6.0), 2, num_workers=workers)
    feed = Feed(loader, 2, "limit_train_batches", copies)
    assert (feed.copies is not None) is ahead
    assert [(batch.tolist(), feed.is_last) for batch in feed.batches()] == [([0, 1], False), ([2, 3], True)]
    mixed = Feed([loader, DataLoader(torch.arange(6.0), 2)], 1.0, "limit_train_batches", copies)
    assert mixed.copies is None


def test_the_cpu_has_nothing_to_copy_to():
    assert streams_of(torch.device("cpu")) is None
