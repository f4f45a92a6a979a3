"""Collections: names, order, shared updates, copies and checkpoints."""

import copy
import pickle

import pytest
import torch

from leyden.metrics import (
    BinaryAccuracy,
    BinaryF1Score,
    MaxMetric,
    MeanMetric,
    Metric,
    MetricCollection,
    MetricTypeError,
    MetricValueError,
    MinMetric,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

GENERATOR = torch.Generator().manual_seed(2)


def batch(classes=5):
    return torch.randn(16, classes, generator=GENERATOR), torch.randint(0, classes, (16,), generator=GENERATOR)


def trio(classes=5):
    return {
        "f1": MulticlassF1Score(classes),
        "acc": MulticlassAccuracy(classes, average="micro"),
        "matrix": MulticlassConfusionMatrix(classes, normalize="true"),
    }


@pytest.fixture
def updates(monkeypatch):
    """Count the calls that reach the counters."""
    seen = []
    inner = MulticlassAccuracy._count
    monkeypatch.setattr(
        "leyden.metrics.classification.multiclass.MulticlassCounts._count", lambda *a: (seen.append(1), inner(*a))
    )
    return seen


@pytest.mark.parametrize("classes", [5, 60])
@pytest.mark.parametrize("call", ["update", "forward"])
def test_metrics_with_equal_states_share_one_update_and_lose_nothing(classes, call, updates):
    metrics, alone = MetricCollection(trio(classes)), trio(classes)
    assert metrics.compute_groups == {0: ["f1", "acc", "matrix"]}
    for _ in range(3):
        preds, target = batch(classes)
        updates.clear()
        got = getattr(metrics, call)(preds, target)
        assert len(updates) == 1
        expected = {name: metric(preds, target) for name, metric in alone.items()}
        if call == "forward":
            assert all(torch.equal(got[name], expected[name]) for name in alone)
    result = metrics.compute()
    assert list(result) == ["f1", "acc", "matrix"]
    assert all(torch.equal(result[name], alone[name].compute()) for name in alone)
    assert all(metric.update_count == 3 for metric in metrics.values())


@pytest.mark.parametrize(
    "other",
    [
        MulticlassAccuracy(4),
        MulticlassAccuracy(5, top_k=2),
        MulticlassAccuracy(5, ignore_index=0),
        MulticlassAccuracy(5, multidim_average="samplewise"),
        MulticlassAccuracy(5, validate_args=False),
        BinaryAccuracy(),
    ],
)
def test_other_arguments_mean_other_states(other):
    assert len(MetricCollection({"a": MulticlassF1Score(5), "b": other}).compute_groups) == 2


def test_sharing_can_be_switched_off():
    metrics = MetricCollection(trio(), compute_groups=False)
    assert len(metrics.compute_groups) == 3
    with pytest.raises(MetricTypeError, match="compute_groups must be True or False"):
        MetricCollection(trio(), compute_groups=[["f1", "acc"]])


def test_a_member_used_alone_affects_nobody_and_shares_again_after_the_reset():
    metrics = MetricCollection(trio())
    first, second = batch(), batch()
    metrics.update(*first)
    before = metrics["f1"].compute()
    metrics["acc"].update(*second)
    assert metrics["f1"].update_count == 1
    assert metrics["acc"].update_count == 2
    assert torch.equal(metrics["f1"].compute(), before)
    metrics.update(*second)
    expected = MulticlassAccuracy(5, average="micro")
    for data in (first, second, second):
        expected.update(*data)
    assert torch.equal(metrics["acc"].compute(), expected.compute())
    metrics["matrix"].reset()
    assert metrics["f1"].update_count == 2
    metrics.reset()
    assert metrics.compute_groups == {0: ["f1", "acc", "matrix"]}
    assert all(metric.update_count == 0 for metric in metrics.values())


def test_a_member_with_data_does_not_share():
    used = MulticlassAccuracy(5)
    used.update(*batch())
    metrics = MetricCollection({"used": used, "new": MulticlassF1Score(5)})
    assert len(metrics.compute_groups) == 2
    metrics.update(*batch())
    assert [metric.update_count for metric in metrics.values()] == [2, 1]


def test_order_names_prefix_and_postfix():
    metrics = MetricCollection({"z": MeanMetric(), "a": MaxMetric()}, prefix="val/", postfix="_1")
    assert metrics.keys() == list(metrics) == ["val/z_1", "val/a_1"]
    assert metrics.keys(keep_base=True) == ["z", "a"]
    assert "val/z_1" in metrics
    assert "z" in metrics
    assert "q" not in metrics
    assert metrics["val/z_1"] is metrics["z"]
    assert dict(metrics.items())["val/a_1"] is metrics.values()[1]
    assert len(metrics) == 2
    assert list(metrics(1.0)) == ["val/z_1", "val/a_1"]
    assert metrics.batch_value == {"val/z_1": 1, "val/a_1": 1}
    test = metrics.clone(prefix="test/")
    assert test.keys() == ["test/z_1", "test/a_1"]
    assert metrics.keys() == ["val/z_1", "val/a_1"]
    with pytest.raises(KeyError, match="no metric is named 'q'"):
        metrics["q"]


def test_ways_to_build_one():
    assert MetricCollection(MeanMetric()).keys() == ["MeanMetric"]
    assert MetricCollection([MeanMetric(), MaxMetric()], MinMetric()).keys() == ["MeanMetric", "MaxMetric", "MinMetric"]
    inner = MetricCollection([MaxMetric()], prefix="in_")
    assert MetricCollection({"a": MeanMetric(), "b": inner}).keys() == ["a", "b_in_MaxMetric"]
    assert MetricCollection([MeanMetric(), inner]).keys() == ["MeanMetric", "in_MaxMetric"]
    metrics = MetricCollection(MulticlassAccuracy(3))
    metrics.add_metrics({"f1": MulticlassF1Score(3)})
    assert metrics.compute_groups == {0: ["MulticlassAccuracy", "f1"]}


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (
            lambda: MetricCollection([MeanMetric(), MeanMetric()]),
            MetricValueError,
            "two metrics are named 'MeanMetric'",
        ),
        (lambda: MetricCollection({"update": MeanMetric()}), MetricValueError, "'update' can not name a metric"),
        (lambda: MetricCollection({"a.b": MeanMetric()}), MetricValueError, "'a.b' can not name a metric"),
        (lambda: MetricCollection({"a": torch.nn.Linear(1, 1)}), MetricTypeError, "holds leyden.metrics metrics"),
        (lambda: MetricCollection(MeanMetric(), prefix=1), MetricTypeError, "prefix must be a string or None; got 1"),
    ],
)
def test_wrong_members_are_named(build, error, says):
    with pytest.raises(error, match=says):
        build()


class Named(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), "sum")

    def update(self, value, scale=1.0):
        self.total += value * scale

    def compute(self):
        return {"sum": self.total, "half": self.total / 2}


def test_results_that_are_mappings_are_taken_apart():
    metrics = MetricCollection({"n": Named(), "m": SumOfNamed()}, prefix="p_")
    metrics.update(2.0)
    assert metrics.compute() == {"p_n_sum": 2, "p_half": 1, "p_m_sum": 20}


class SumOfNamed(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), "sum")

    def update(self, value):
        self.total += 10 * value

    def compute(self):
        return {"sum": self.total}


def test_keywords_go_to_the_metrics_that_know_them():
    metrics = MetricCollection({"n": Named(), "m": SumOfNamed()})
    metrics.update(2.0, scale=3.0)
    assert metrics.compute()["n_sum"] == 6
    with pytest.raises(MetricTypeError, match="takes the argument 'scal'"):
        metrics.update(2.0, scal=3.0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_share_among_themselves_only(copied):
    metrics = MetricCollection(trio())
    metrics.update(*batch())
    other = copied(metrics)
    other.update(*batch())
    assert other.compute_groups == {0: ["f1", "acc", "matrix"]}
    assert [m.update_count for m in (*metrics.values(), *other.values())] == [1, 1, 1, 2, 2, 2]
    single = metrics["f1"].clone()
    single.update(*batch())
    assert metrics["f1"].update_count == 1


@pytest.mark.parametrize("classes", [5, 60])
def test_checkpoints_restore_every_member(classes):
    metrics, other = MetricCollection(trio(classes)), MetricCollection(trio(classes))
    metrics.update(*batch(classes))
    for collection in (metrics, other):
        collection.persistent(True)
    other.load_state_dict(metrics.state_dict())
    data = batch(classes)
    metrics.update(*data)
    other.update(*data)
    a, b = metrics.compute(), other.compute()
    assert all(torch.equal(a[name], b[name]) for name in a)
    other.reset()
    assert len(other.compute_groups) == 1


def test_a_member_s_checkpoint_fits_the_metric_alone():
    metrics, alone = MetricCollection(trio(60)), MulticlassF1Score(60)
    metrics.update(*batch(60))
    metrics.persistent(True)
    alone.load_state_dict(metrics["f1"].state_dict())
    assert torch.equal(alone.compute(), metrics["f1"].compute())


def test_shared_states_are_listed_once():
    metrics = MetricCollection({**trio(), "mean": BinaryF1Score() * 2})
    specs = metrics.state_specs()
    assert "f1/confmat" in specs
    assert not any(key.startswith(("acc/", "matrix/")) for key in specs)
    assert "mean/a/cells" in specs
    assert specs.keys() == metrics.export_states().keys()
    assert all(spec.name == key for key, spec in specs.items())


def test_compositions_are_members_like_others():
    high = MaxMetric()
    metrics = MetricCollection({"spread": high - MinMetric(), "high": high})
    metrics.update(torch.tensor([1.0, 4.0]))
    assert metrics(torch.tensor([2.0, 5.0])) == {"spread": 3, "high": 5}
    assert metrics.compute() == {"spread": 4, "high": 5}


def test_a_metric_in_several_members_is_updated_once_and_parts_share_too():
    accuracy = MulticlassAccuracy(5)
    metrics = MetricCollection({"accuracy": accuracy, "error": 1 - accuracy, "sum": accuracy + MulticlassF1Score(5)})
    assert metrics.compute_groups == {0: ["accuracy", "sum/b"]}
    preds, target = batch()
    value = metrics(preds, target)
    assert value["error"] == 1 - value["accuracy"]
    assert metrics["error"].batch_value == value["error"]
    metrics.update(preds, target)
    assert accuracy.update_count == metrics["sum"].update_count == 2
    expected = MulticlassF1Score(5)(preds, target) + value["accuracy"]
    assert metrics.compute()["sum"] == expected
    metrics.reset()
    assert accuracy.update_count == metrics["sum"].update_count == 0


def test_devices_follow_the_collection():
    metrics = MetricCollection(trio()).to("meta")
    metrics.update(torch.zeros(2, 5, device="meta"), torch.zeros(2, dtype=torch.long, device="meta"))
    assert {metric.device.type for metric in metrics.values()} == {"meta"}
