"""A batch of any shape goes to a device whole, and what was given stays as it was."""

from collections import Counter, OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from leyden.core.transfer import move_to_device

Pair = namedtuple("Pair", "x y")
ELSEWHERE = torch.device("meta")  # every machine has it


@dataclass
class Sample:
    x: torch.Tensor
    name: str = "a"
    rest: list = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor


class Batch(dict):
    def __init__(self, size, **values):
        super().__init__(**values)
        self.size = size


class Sequence(list):
    pass


def tensor():
    return torch.zeros(2)


def moved(value):
    return move_to_device(value, ELSEWHERE)


def test_a_tensor_moves():
    assert moved(tensor()).device == ELSEWHERE


def test_a_tensor_that_is_there_is_not_copied():
    value = tensor()
    assert move_to_device(value, "cpu") is value


@pytest.mark.parametrize("value", ["text", 3, None, b"bytes", {1, 2}, object, lambda: None, torch.Size([2])], ids=repr)
def test_anything_else_stays_what_it_is(value):
    assert moved(value) == value
    assert type(moved(value)) is type(value)


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ([tensor(), 1], lambda v: v[0]),
        ((tensor(), "a"), lambda v: v[0]),
        (Pair(tensor(), 1), lambda v: v.x),
        (Sequence([tensor()]), lambda v: v[0]),
        ({"a": tensor(), 1: "b"}, lambda v: v["a"]),
        (OrderedDict(b=1, a=tensor()), lambda v: v["a"]),
        (defaultdict(list, a=tensor()), lambda v: v["a"]),
        (Counter(a=tensor()), lambda v: v["a"]),
        (UserDict(a=tensor()), lambda v: v["a"]),
        (Batch(7, a=tensor()), lambda v: v["a"]),
        (Sample(tensor()), lambda v: v.x),
        (Sample(tensor(), rest=[{"deep": tensor()}]), lambda v: v.rest[0]["deep"]),
        (Frozen(tensor()), lambda v: v.x),
        ([[({"a": [tensor()]},)]], lambda v: v[0][0][0]["a"][0]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_containers_keep_their_type_and_what_was_given_stays(value, inside):
    result = moved(value)
    assert type(result) is type(value)
    assert inside(result).device == ELSEWHERE
    assert inside(value).device == torch.device("cpu"), "the data set may hold it and give it again"


def test_what_containers_hold_beside_tensors_survives():
    assert list(moved(OrderedDict(b=1, a=tensor()))) == ["b", "a"]
    assert moved(defaultdict(list, a=tensor()))["new"] == []
    assert moved(Batch(7, a=tensor())).size == 7
    assert moved(Sample(tensor(), "name")).name == "name"


def test_an_object_with_a_method_of_its_own_uses_it():
    class Graph:
        def __init__(self, device="cpu"):
            self.device = device

        def to(self, device):
            return Graph(device)

    class InPlace(Graph):
        def to(self, device):
            self.device = device

    assert moved(Graph()).device == ELSEWHERE
    assert moved([InPlace()])[0].device == ELSEWHERE


def test_a_packed_sequence_keeps_its_lengths_where_they_belong():
    packed = pack_sequence([torch.ones(2), torch.ones(1)])
    result = moved(packed)
    assert result.data.device == ELSEWHERE
    assert result.batch_sizes.device == torch.device("cpu")


def test_predictions_come_back_on_the_cpu(quiet, tiny, numbers):
    class Predicting(tiny):
        def predict_step(self, batch, batch_idx):
            return {"x": batch[0] * 2, "i": batch_idx}

    out = quiet().predict(Predicting(), numbers(4))
    assert [o["i"] for o in out] == [0, 1]
    assert torch.cat([o["x"] for o in out]).tolist() == [0, 2, 4, 6]


def test_the_hooks_of_a_transfer_change_the_batch(quiet, tiny, numbers):
    class Changing(tiny):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + 1]

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            assert device == torch.device("cpu")
            return [super().transfer_batch_to_device(batch, device, dataloader_idx)[0] * 10]

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [batch[0] + 0.5]

        def predict_step(self, batch, batch_idx):
            return batch[0]

    assert torch.cat(quiet().predict(Changing(), numbers(4))).tolist() == [10.5, 20.5, 30.5, 40.5]
