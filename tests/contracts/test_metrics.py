"""Metrics meet core by shape: the Protocols, the StateSpec and the transport."""

import dataclasses
import importlib
import importlib.util

import pytest
import torch
import torchmetrics

from leyden.core.interfaces import MetricGroup, MetricLike, SyncableMetric
from leyden.core.interfaces import StateSpec as CoreSpec
from leyden.metrics import (
    BinaryAccuracy,
    MaxMetric,
    MeanMetric,
    MetricCollection,
    MulticlassConfusionMatrix,
    MultilabelF1Score,
    StateSpec,
)

METRICS = [
    BinaryAccuracy(),
    MulticlassConfusionMatrix(3),
    MultilabelF1Score(2),
    MeanMetric(),
    MaxMetric() - 1.0,
    MetricCollection([BinaryAccuracy()]),
]


def shape_of(metric):
    return type(metric).__name__


@pytest.mark.parametrize("metric", METRICS, ids=shape_of)
def test_our_metrics_are_metric_like_and_syncable(metric):
    assert isinstance(metric, MetricLike)
    assert isinstance(metric, SyncableMetric)
    assert all(callable(getattr(type(metric), name)) for name in ("update", "compute", "reset"))
    assert metric.batch_value is None


@pytest.mark.parametrize("metric", METRICS, ids=shape_of)
def test_specs_and_states_have_the_same_keys_and_can_be_installed(metric):
    specs, states = metric.state_specs(), metric.export_states()
    assert specs.keys() == states.keys()
    for key, spec in specs.items():
        assert spec.name == key
        value = states[key]
        assert (
            isinstance(value, list)
            if spec.shape is None
            else (tuple(value.shape), value.dtype) == (spec.shape, spec.dtype)
        )
        assert spec.weight_of is None or spec.weight_of in specs
    with metric.synced(states):
        metric.compute()


def test_a_collection_is_a_group_and_torchmetrics_collection_too():
    ours = MetricCollection({"accuracy": BinaryAccuracy()}, prefix="val_")
    assert isinstance(ours, MetricGroup)
    batch = torch.tensor([0.2, 0.8]), torch.tensor([0, 1])
    theirs = torchmetrics.MetricCollection({"accuracy": torchmetrics.classification.BinaryAccuracy()}, prefix="val_")
    assert isinstance(theirs, MetricGroup)
    assert ours(*batch) == theirs(*batch)
    assert ours.batch_value == {"val_accuracy": 1.0}


def test_torchmetrics_are_metric_like_and_synchronise_themselves():
    metric = torchmetrics.MeanMetric()
    assert isinstance(metric, MetricLike)
    assert not isinstance(metric, SyncableMetric)


def test_state_specs_are_equal_in_shape():
    ours = [(f.name, str(f.type), f.default) for f in dataclasses.fields(StateSpec)]
    cores = [(f.name, str(f.type), f.default) for f in dataclasses.fields(CoreSpec)]
    assert ours == cores
    assert StateSpec.__dataclass_params__.frozen
    assert CoreSpec.__dataclass_params__.frozen
    with pytest.raises(dataclasses.FrozenInstanceError):
        StateSpec("a", "sum", torch.int64, ()).name = "b"


PAIRS = [
    ("MulticlassAccuracy", {"num_classes": 4}),
    ("MulticlassAccuracy", {"num_classes": 4, "average": "micro"}),
    ("MulticlassAccuracy", {"num_classes": 4, "average": "weighted", "top_k": 2}),
    ("MulticlassAccuracy", {"num_classes": 4, "average": None, "ignore_index": -1}),
    ("MulticlassAccuracy", {"num_classes": 40, "average": "none"}),
    ("MulticlassF1Score", {"num_classes": 4, "average": "macro"}),
    ("MulticlassF1Score", {"num_classes": 4, "average": "none", "top_k": 3}),
    ("MulticlassF1Score", {"num_classes": 4, "average": "micro", "ignore_index": 2}),
    ("MulticlassF1Score", {"num_classes": 40, "average": "weighted", "zero_division": 1}),
    ("MulticlassConfusionMatrix", {"num_classes": 4, "normalize": "all", "ignore_index": 1}),
    ("BinaryAccuracy", {"threshold": 0.7}),
    ("BinaryF1Score", {"ignore_index": -1}),
    ("BinaryConfusionMatrix", {"normalize": "true"}),
    ("MultilabelAccuracy", {"num_labels": 4}),
    ("MultilabelF1Score", {"num_labels": 4, "average": "weighted"}),
    ("MultilabelConfusionMatrix", {"num_labels": 4, "normalize": "true"}),
]


def batches(name, arguments, generator):
    for _ in range(3):
        if name.startswith("Multiclass"):
            classes = arguments["num_classes"]
            preds, target = (
                torch.randn(30, classes, generator=generator),
                torch.randint(0, classes, (30,), generator=generator),
            )
        else:
            shape = (30, 4) if name.startswith("Multilabel") else (30,)
            preds, target = torch.rand(shape, generator=generator), torch.randint(0, 2, shape, generator=generator)
        ignored = arguments.get("ignore_index")
        if ignored is not None:
            target = torch.where(torch.rand(target.shape, generator=generator) < 0.2, ignored, target)
        yield preds, target


@pytest.mark.parametrize(("name", "arguments"), PAIRS)
def test_values_batch_values_and_shapes_are_those_of_torchmetrics(name, arguments):
    ours = getattr(importlib.import_module("leyden.metrics"), name)(**arguments)
    theirs = getattr(torchmetrics.classification, name)(**arguments)
    for preds, target in batches(name, arguments, torch.Generator().manual_seed(0)):
        torch.testing.assert_close(ours(preds, target), theirs(preds, target))
    torch.testing.assert_close(ours.compute(), theirs.compute())


@pytest.mark.parametrize("name", ["MulticlassAccuracy", "MulticlassF1Score", "MultilabelAccuracy", "MultilabelF1Score"])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
def test_samplewise_values_are_those_of_torchmetrics(name, average):
    options = {"average": average, "multidim_average": "samplewise"}
    ours = getattr(importlib.import_module("leyden.metrics"), name)(4, **options)
    theirs = getattr(torchmetrics.classification, name)(4, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        preds = torch.rand(5, 4, 9, generator=generator)
        shape, top = ((5, 9), 4) if name.startswith("Multiclass") else ((5, 4, 9), 2)
        target = torch.randint(0, top, shape, generator=generator)
        torch.testing.assert_close(ours(preds, target), theirs(preds, target))
    torch.testing.assert_close(ours.compute(), theirs.compute())


@pytest.mark.parametrize("name", ["MeanMetric", "SumMetric", "MaxMetric", "MinMetric"])
def test_aggregates_are_those_of_torchmetrics(name):
    ours = getattr(importlib.import_module("leyden.metrics"), name)()
    theirs = getattr(torchmetrics, name)()
    for value in (1.5, torch.tensor([2.0, -3.0]), torch.tensor([[4.0]])):
        torch.testing.assert_close(ours(value), theirs(value))
    torch.testing.assert_close(ours.compute(), theirs.compute())
