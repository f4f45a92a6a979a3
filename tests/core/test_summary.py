"""The summary of a model: every layer with its parameters and sizes, and totals that count each parameter once."""

import io

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.callbacks import ModelSummary, RichModelSummary, rich_summary
from leyden.core.errors import LeydenWarning, MisconfigurationValueError, MissingExtraError
from leyden.core.utilities.model_summary import get_human_readable_count, summarize


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 20)
        self.deep = nn.Sequential(nn.Linear(20, 5, bias=False), nn.BatchNorm1d(5))

    def forward(self, x):
        return self.deep(self.first(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(10, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.example_input_array = torch.zeros(2, 4, 10)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def rows(text):
    return [tuple(cell.strip() for cell in line.split("|")) for line in text.splitlines() if "|" in line]


def test_the_table():
    assert str(summarize(nn.Sequential(nn.Linear(1000, 2), Block()))).splitlines() == [
        "  | Name | Type   | Params | Mode  | FLOPs",
        "-" * 48,
        "0 | 0    | Linear | 2.0 K  | train | 0    ",
        "1 | 1    | Block  | 330    | train | 0    ",
        "-" * 48,
        "2.3 K     Trainable params",
        "0         Non-trainable params",
        "2.3 K     Total params",
        "0.009     Total estimated model params size (MB)",
        "6         Modules in train mode",
        "0         Modules in eval mode",
        "0         Total Flops",
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
    found = summarize(Block(), max_depth=depth)
    assert found.layer_names == names
    assert found.total_parameters == 330
    assert [row[1] for row in rows(str(found))[1:] if row[1] != "other params"] == names


def test_parameters_that_layers_share_count_once_in_the_totals():
    model = nn.Module()
    model.embed = nn.Embedding(100, 8)
    model.head = nn.Linear(8, 100, bias=False)
    model.head.weight = model.embed.weight
    found = summarize(model)
    assert found.param_nums == [800, 800]
    assert (found.total_parameters, found.total_layer_params) == (800, 1600)


def test_parameters_outside_of_layers_are_other_params():
    model = Block()
    model.scale = nn.Parameter(torch.ones(7))
    assert rows(str(summarize(model)))[-1] == ("", "other params", "n/a", "7", "n/a", "n/a")


def test_frozen_parameters_are_not_trainable_and_buffers_are_no_parameters():
    model = Block()
    model.first.requires_grad_(False)
    model.register_buffer("large", torch.zeros(10_000))
    assert (summarize(model).total_parameters, summarize(model).trainable_parameters) == (330, 110)


def test_the_size_follows_the_number_format():
    assert summarize(nn.Linear(999, 1000).double()).model_size == pytest.approx(8.0)
    assert summarize(nn.Linear(999, 1000).half()).model_size == pytest.approx(2.0)


def test_lazy_parameters_count_as_nothing_and_are_warned_about():
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    with pytest.warns(LeydenWarning, match="total number of parameters detected may be inaccurate"):
        assert summarize(model).param_nums == [0, 4]
    model(torch.zeros(1, 2))
    assert summarize(model).param_nums == [9, 4]


def test_modes_are_counted():
    model = Block()
    model.deep.eval()
    found = summarize(model)
    assert found.training_modes == [True, False]
    assert found.total_training_modes == {"train": 1, "eval": 3}


def test_without_an_example_sizes_are_not_known():
    found = summarize(Block())
    assert found.in_sizes == found.out_sizes == ["?", "?"]
    assert "In sizes" not in str(found)


def test_an_example_gives_sizes_and_operations_and_leaves_the_model_as_it_was():
    model = Block().train()
    model.deep.eval()
    model.example_input_array = torch.zeros(4, 10)
    found = summarize(model, max_depth=-1)
    assert found.in_sizes == [[4, 10], [4, 20], [4, 20], [4, 5]]
    assert found.out_sizes == [[4, 20], [4, 5], [4, 5], [4, 5]]
    assert found.total_flops == 2 * 4 * (10 * 20 + 20 * 5)
    assert [sum(count.values()) for count in found.flop_counts.values()] == [1600, 800, 800, 0]
    assert (model.training, model.deep.training, model.first.training) == (True, False, True)
    assert not model.first._forward_hooks


def test_nested_sizes():
    found = summarize(Recurrent())
    assert found.in_sizes == [[2, 4, 10], [2, 4, 8]]
    assert found.out_sizes == [[[2, 4, 8], [[2, 2, 8], [2, 2, 8]]], [2, 4, 3]]


@pytest.mark.parametrize("example", [(torch.zeros(1, 2), torch.zeros(1, 2)), {"y": torch.zeros(1, 2), "x": None}])
def test_an_example_of_several_arguments(example):
    class Two(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.example_input_array = example

        def forward(self, x, y):
            return self.layer(y)

    assert summarize(Two()).in_sizes == [[1, 2]]


def test_a_model_without_parameters():
    assert summarize(nn.Module()).total_parameters == 0
    assert "0         Total params" in str(summarize(nn.ReLU()))


@pytest.mark.parametrize(("number", "text"), [(0, "0  "), (999, "999  "), (1000, "1.0 K"), (123_456, "123 K")])
def test_numbers_have_units(number, text):
    assert get_human_readable_count(number) == text


def test_a_fit_prints_it_once_unless_it_is_told_not_to(quiet, tiny, numbers, capsys):
    class Deep(tiny):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def test_step(self, batch, batch_idx): ...

    trainer, model = quiet(enable_model_summary=True), Deep()
    trainer.fit(model, numbers())
    trainer.test(model, numbers(), verbose=False)
    text = capsys.readouterr().out
    assert text.count("Total params") == 1
    assert rows(text)[1][:4] == ("0", "block", "Block", "330")
    quiet(enable_model_summary=False).fit(Deep(), numbers())
    assert capsys.readouterr().out == ""


def test_a_summary_of_one_s_own_takes_its_place(quiet, tiny, numbers, capsys):
    silent = ModelSummary(max_depth=0)
    trainer = quiet(enable_model_summary=True, callbacks=silent)
    trainer.fit(tiny(), numbers())
    assert capsys.readouterr().out == ""
    assert [c for c in trainer.callbacks if isinstance(c, ModelSummary)] == [silent]


def test_another_way_to_show_it(quiet, tiny, numbers):
    shown = []

    class Mine(ModelSummary):
        @staticmethod
        def summarize(summary_data, total_parameters, trainable_parameters, model_size, total_training_modes, **more):
            shown.append(([title for title, _ in summary_data], total_parameters, more))

    quiet(enable_model_summary=True, callbacks=Mine(max_depth=1, colour="red")).fit(tiny(), numbers())
    titles, total, more = shown[0]
    assert titles[:4] == [" ", "Name", "Type", "Params"]
    assert (total, more) == (1, {"total_flops": 0, "colour": "red"})


@pytest.mark.parametrize("depth", [-2, 1.5, "all"])
def test_an_impossible_depth_is_refused(depth):
    for refusing in (lambda: ModelSummary(max_depth=depth), lambda: summarize(Block(), max_depth=depth)):
        with pytest.raises(MisconfigurationValueError, match="`max_depth` can be -1, 0 or > 0, got"):
            refusing()


def test_a_table_in_colour_on_a_terminal(quiet, tiny, numbers):
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    model = tiny()
    model.block = Block()
    quiet(enable_model_summary=True, callbacks=RichModelSummary(console=console)).fit(model, numbers())
    assert "Block" in screen.getvalue()
    assert "Total params: 331" in screen.getvalue()


def test_without_a_terminal_the_table_is_plain(quiet, tiny, numbers, capsys):
    quiet(enable_model_summary=True, callbacks=RichModelSummary()).fit(tiny(), numbers())
    assert "1         Total params" in capsys.readouterr().out


def test_without_rich_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(rich_summary, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"`RichModelSummary` requires `rich`.*leyden-core\[rich\]"):
        RichModelSummary()
