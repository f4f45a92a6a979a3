"""The transport is one file, twice; the log book carries metrics of leyden.metrics with it."""

import inspect

import pytest
import torch
import torch.distributed as dist
import torchmetrics

import leyden.core.sync
import leyden.metrics.sync
from leyden.core.logbook.book import LogBook
from leyden.core.logbook.results import Results
from leyden.metrics import MeanMetric, MetricCollection, MulticlassAccuracy, MulticlassF1Score, StateSpec

FLAGS = (False, None, None, None, "mean", False, None, True, False, None)


@pytest.fixture
def group():
    """A process group of one: collectives that come back with what they were given."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_two_files_are_one():
    core, metrics = inspect.getsource(leyden.core.sync), inspect.getsource(leyden.metrics.sync)
    assert core == metrics
    assert len(core.splitlines()) <= 150
    assert "import leyden" not in core
    assert "from leyden" not in core


@pytest.mark.usefixtures("group")
def test_both_give_the_same_for_the_same_states():
    specs = {
        "counts": StateSpec("counts", "sum", torch.int64, (2,)),
        "lowest": StateSpec("lowest", "min", torch.float32, (3000,), float("inf")),
        "seen": StateSpec("seen", "cat", torch.bfloat16, None, None),
        "level": StateSpec("level", "mean", torch.float64, (), 0, weight_of="amount"),
        "amount": StateSpec("amount", "sum", torch.float64, ()),
    }
    states = {
        "counts": torch.tensor([2**60 + 1, -1]),
        "lowest": torch.arange(3000.0),
        "seen": [torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(0, 3, dtype=torch.bfloat16)],
        "level": torch.tensor(0.5, dtype=torch.float64),
        "amount": torch.tensor(4.0, dtype=torch.float64),
    }
    for module in (leyden.core.sync, leyden.metrics.sync):
        result = module.reduce_states(specs, states)
        assert result.keys() == states.keys()
        torch.testing.assert_close(dict(result), states, rtol=0, atol=0)


@pytest.mark.usefixtures("group")
def test_metrics_and_numbers_of_a_boundary_cross_in_one_collective(monkeypatch):
    calls, gather = [], dist.all_gather
    monkeypatch.setattr(
        dist, "all_gather", lambda *args, **kwargs: calls.append("all_gather") or gather(*args, **kwargs)
    )
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: calls.append("all_reduce"))
    module = torch.nn.Module()
    module.scores = MetricCollection([kind(3, average="micro") for kind in (MulticlassAccuracy, MulticlassF1Score)])
    module.mean, module.top = MeanMetric(), MeanMetric() - 1.0
    book, results = LogBook(module, world_size=2), Results()
    book.begin(results)
    book.enter("validation_step")
    for value in (1.0, 4.0):
        module.scores.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
        module.mean.update(value)
        module.top.update(value)
        book.log("", module.scores, FLAGS, None, None)
        book.log("mean", module.mean, FLAGS, None, None)
        book.log("top", module.top, FLAGS, None, None)
        book.log("loss", value, FLAGS, 1, None)
    values, _ = book.end_batches()
    assert calls == ["all_gather"]
    expected = {"MulticlassAccuracy": 2 / 3, "MulticlassF1Score": 2 / 3, "mean": 2.5, "top": 1.5, "loss": 2.5}
    assert {name: value.item() for name, value in values.items()} == pytest.approx(expected)


@pytest.mark.usefixtures("group")
def test_torchmetrics_synchronise_themselves_also_where_nothing_was_logged():
    module = torch.nn.Module()
    module.mean = torchmetrics.MeanMetric()
    book, results = LogBook(module, world_size=2), Results()
    book.begin(results)
    book.enter("validation_step")
    module.mean.update(3.0)
    book.log("mean", module.mean, FLAGS, None, None)
    assert book.end_batches()[0] == book.callback_metrics == {"mean": 3.0}
    results.clear()
    assert module.mean.update_count == 0
