"""The summary of a model: every layer with its parameters, and totals that count each parameter once."""

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.callbacks.summary import summarize
from leyden.core.errors import MisconfigurationValueError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 20)
        self.deep = nn.Sequential(nn.Linear(20, 5, bias=False), nn.BatchNorm1d(5))

    def forward(self, x):
        return self.deep(self.first(x))


def rows(text):
    return [tuple(cell.strip() for cell in line.split("|")) for line in text.splitlines()[2:-1]]


def test_the_layers_with_their_parameters():
    text = summarize(nn.Sequential(nn.Linear(1000, 2), Block()))
    assert text.splitlines() == [
        "name | type   | params",
        "-----+--------+-------",
        "0    | Linear | 2,002",
        "1    | Block  | 330",
        "2,332 parameters (2,332 trainable), 0.009 MB",
    ]


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0, []),
        (1, ["first", "deep"]),
        (2, ["first", "deep", "deep.0", "deep.1"]),
        (-1, ["first", "deep", "deep.0", "deep.1"]),
        (9, ["first", "deep", "deep.0", "deep.1"]),
    ],
)
def test_the_depth(depth, names):
    text = summarize(Block(), depth)
    assert [row[0] for row in rows(text)] == names
    assert text.splitlines()[-1] == "330 parameters (330 trainable), 0.001 MB"


def test_parameters_that_layers_share_count_once_in_the_totals():
    model = nn.Module()
    model.embed = nn.Embedding(100, 8)
    model.head = nn.Linear(8, 100, bias=False)
    model.head.weight = model.embed.weight
    text = summarize(model)
    assert [row[2] for row in rows(text)] == ["800", "800"]
    assert text.splitlines()[-1] == "800 parameters (800 trainable), 0.003 MB"


def test_frozen_parameters_are_not_trainable_and_buffers_are_no_parameters():
    model = Block()
    model.first.requires_grad_(False)
    model.register_buffer("large", torch.zeros(10_000))
    assert summarize(model).splitlines()[-1] == "330 parameters (110 trainable), 0.001 MB"


def test_the_size_follows_the_number_format():
    assert summarize(nn.Linear(999, 1000).double(), 0) == "1,000,000 parameters (1,000,000 trainable), 8.000 MB"
    assert summarize(nn.Linear(999, 1000).half(), 0).endswith(" 2.000 MB")


def test_lazy_parameters_are_marked_until_they_are_made():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    assert [row[2] for row in rows(summarize(model))] == ["0+", "4"]
    assert summarize(model).splitlines()[-1] == "4+ parameters (4+ trainable), 0.000 MB"
    model(torch.zeros(1, 2))
    assert [row[2] for row in rows(summarize(model))] == ["9", "4"]


def test_a_model_without_parameters():
    assert summarize(nn.Module()) == "0 parameters (0 trainable), 0.000 MB"
    assert summarize(nn.ReLU()) == "0 parameters (0 trainable), 0.000 MB"


def test_a_fit_prints_it_once_unless_it_is_told_not_to(quiet, tiny, numbers, capsys):
    class Deep(tiny):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def test_step(self, batch, batch_idx): ...

    trainer, model = quiet(enable_model_summary=True), Deep()
    trainer.fit(model, numbers())
    trainer.test(model, numbers(), verbose=False)
    assert capsys.readouterr().out.splitlines() == [
        "name  | type  | params",
        "------+-------+-------",
        "block | Block | 330",
        "331 parameters (331 trainable), 0.001 MB",
    ]
    quiet(enable_model_summary=False).fit(Deep(), numbers())
    assert capsys.readouterr().out == ""


def test_a_summary_of_one_s_own_takes_its_place(quiet, tiny, numbers, capsys):
    summary = L.callbacks.ModelSummary(max_depth=0)
    trainer = quiet(enable_model_summary=True, callbacks=summary)
    trainer.fit(tiny(), numbers())
    assert capsys.readouterr().out == "1 parameters (1 trainable), 0.000 MB\n"
    assert [c for c in trainer.callbacks if isinstance(c, L.callbacks.ModelSummary)] == [summary]


@pytest.mark.parametrize("depth", [-2, 1.5, "all"])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(MisconfigurationValueError, match="`max_depth` must be -1, 0, or more; got"):
        L.callbacks.ModelSummary(max_depth=depth)
