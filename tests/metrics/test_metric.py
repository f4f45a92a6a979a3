"""What every metric does: states, forward, reset, copies, checkpoints, devices, arithmetic."""

import copy
import io
import operator
import pickle

import pytest
import torch

from leyden.metrics import (
    BinaryAccuracy,
    CompositionalMetric,
    MaxMetric,
    MeanMetric,
    Metric,
    MetricError,
    MetricTypeError,
    MetricValueError,
    MetricWarning,
    MinMetric,
    MulticlassAccuracy,
    MulticlassF1Score,
    SumMetric,
)


class Everything(Metric):
    """One state of each reduction, written as users write."""

    def __init__(self, **options):
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("mean", torch.tensor(0.0), dist_reduce_fx="mean")
        self.add_state("low", torch.tensor(float("inf")), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(float("-inf")), dist_reduce_fx="max")
        self.add_state("product", torch.tensor(1.0), dist_reduce_fx=product)
        self.add_state("seen", [], dist_reduce_fx="cat")
        self.passes = 0

    def update(self, value):
        self.passes += 1
        self.total = self.total + value
        self.mean = (self.mean * self.update_count + value) / (self.update_count + 1)
        self.low = torch.minimum(self.low, value)
        self.high = torch.maximum(self.high, value)
        self.product *= value
        self.seen.append(value.reshape(1))

    def compute(self):
        return {n: getattr(self, n) for n in ("total", "mean", "low", "high", "product")} | {
            "seen": torch.cat(self.seen)
        }


def product(stacked):
    return stacked.prod(0)


class Variance(Metric):
    """Welford's variance: its states only combine by the metric's own rule."""

    def __init__(self):
        super().__init__()
        for name in ("count", "center", "spread"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64))

    def update(self, values):
        values = values.double()
        center = values.mean()
        self._fold(values.numel(), center, (values - center).square().sum())

    def merge_state(self, incoming):
        states = incoming if isinstance(incoming, dict) else incoming.metric_state
        self._fold(states["count"], states["center"], states["spread"])

    def _fold(self, count, center, spread):
        both = self.count + count
        self.spread = self.spread + spread + (center - self.center) ** 2 * self.count * count / both
        self.center = self.center + (center - self.center) * count / both
        self.count = both

    def compute(self):
        return self.spread / self.count


class RunningRecord(Metric):
    """Counts how often a new maximum came: an update reads what earlier batches left."""

    full_state_update = True

    def __init__(self):
        super().__init__()
        self.add_state("best", torch.tensor(float("-inf")), "max")
        self.add_state("records", torch.tensor(0), "sum")

    def update(self, value):
        self.records += (value > self.best).long()
        self.best = torch.maximum(self.best, value)

    def compute(self):
        return self.records


class Loss(Metric):
    is_differentiable = True

    def __init__(self):
        super().__init__()
        self.add_state("error", torch.tensor(0.0), "sum")

    def update(self, preds, target):
        self.error = self.error + (preds - target).square().sum()

    def compute(self):
        return self.error


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


def test_forward_gives_the_batch_and_compute_the_whole_from_one_pass():
    metric = Everything()
    for value in numbers(2, 5, 3):
        batch = metric(value)
        assert all(batch[name] == value for name in ("total", "mean", "low", "high", "product"))
        assert batch["seen"] == value
    assert metric.passes == 3
    whole = metric.compute()
    assert whole["total"] == 10
    assert whole["mean"] == pytest.approx(10 / 3)
    assert (whole["low"], whole["high"], whole["product"]) == (2, 5, 30)
    assert whole["seen"].tolist() == [2, 5, 3]
    assert metric.update_count == 3


def test_forward_equals_update_then_compute():
    by_forward, by_update = Everything(), Everything()
    for value in numbers(4, 1, 7):
        by_forward(value)
        by_update.update(value)
    a, b = by_forward.compute(), by_update.compute()
    assert all(torch.allclose(a[name], b[name]) for name in a)


def test_states_with_a_rule_of_their_own_go_through_forward_and_merge():
    data = torch.randn(30, generator=torch.Generator().manual_seed(0))
    metric, other = Variance(), Variance()
    for batch in data[:20].split(5):
        assert metric(batch) == pytest.approx(float(batch.var(correction=0)), rel=1e-5)
    other.update(data[20:])
    metric.merge_state(other)
    assert metric.compute() == pytest.approx(float(data.double().var(correction=0)))


def test_a_metric_whose_updates_depend_on_each_other_keeps_its_state_in_forward():
    metric = RunningRecord()
    assert [int(metric(value)) for value in numbers(1, 3, 2, 5)] == [1, 1, 1, 1]
    assert metric.compute() == 3


def test_a_differentiable_metric_gives_a_loss_and_keeps_no_graph():
    metric = Loss()
    weight = torch.tensor([1.0], requires_grad=True)
    metric(weight, torch.tensor([3.0])).backward()
    assert weight.grad == -4
    assert not metric.error.requires_grad
    assert not metric.batch_value.requires_grad
    assert not MeanMetric()(weight).requires_grad


def test_batch_value_is_that_of_the_last_forward_until_the_reset():
    metric = SumMetric()
    metric.update(1.0)
    assert metric.batch_value is None
    metric(4.0)
    assert metric.batch_value == metric._forward_cache == 4
    metric.reset()
    assert metric.batch_value is None


def test_reset_forgets_and_old_results_stay():
    metric = Everything()
    metric.update(torch.tensor(2.0))
    result = metric.compute()
    metric.update(torch.tensor(3.0))
    metric.reset()
    assert result["total"] == 2
    assert metric.update_count == 0
    assert not metric.update_called
    assert metric.total == 0
    assert metric.seen == []


def test_compute_is_kept_until_the_states_change():
    metric = Everything()
    metric.update(torch.tensor(2.0))
    assert metric.compute() is metric.compute()
    metric.total = torch.tensor(9.0)
    assert metric.compute()["total"] == 9
    assert Everything(compute_with_cache=False).compute_with_cache is False


def test_compute_before_update_warns():
    with pytest.warns(MetricWarning, match="SumMetric.compute was called before any update"):
        assert SumMetric().compute() == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_copies_are_equal_and_independent(copied):
    for metric, batch in [
        (Everything(), (torch.tensor(2.0),)),
        (BinaryAccuracy(), (torch.tensor([0.7]), torch.tensor([1]))),
    ]:
        metric(*batch)
        expected = metric.compute()
        other = copied(metric)
        metric.reset()
        value = other.compute()
        assert value.keys() == expected.keys() if isinstance(value, dict) else value == expected
        other.update(*batch)
        assert (other.update_count, metric.update_count) == (2, 0)


def saved(module):
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("build", [Everything, lambda: MulticlassAccuracy(50)])
def test_persistent_states_come_back_with_the_update_count(build):
    first, second = build(), build()
    batch = (torch.tensor(2.0),) if isinstance(first, Everything) else (torch.tensor([1, 2]), torch.tensor([1, 3]))
    first.update(*batch)
    first.persistent(True)
    second.persistent(True)
    second.load_state_dict(saved(first))
    assert second.update_count == 1
    assert str(second.compute()) == str(first.compute())
    second.update(*batch)
    assert first.update_count == 1


def test_states_are_no_part_of_a_models_weights_unless_asked_for():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), MeanMetric())
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert not list(model.buffers())
    model[1].persistent(True)
    assert "1.mean_value" in model.state_dict()
    assert "1._update_count" in model.state_dict()


def test_missing_unknown_and_misshapen_states_are_errors():
    metric = SumMetric()
    metric.persistent(True)
    with pytest.raises(RuntimeError, match=r"Missing key.*sum_value"):
        metric.load_state_dict({})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*other"):
        metric.load_state_dict({**metric.state_dict(), "other": torch.tensor(1)})
    with pytest.raises(RuntimeError, match=r"'sum_value': shape \(3,\) in the file, \(\) here"):
        metric.load_state_dict({**metric.state_dict(), "sum_value": torch.zeros(3)})


def test_states_follow_the_model_to_its_device():
    model = torch.nn.Sequential(MulticlassAccuracy(3), SumMetric()).to("meta")
    assert model[0].device.type == model[0].confmat.device.type == "meta"
    model[1].reset()
    assert model[1].sum_value.device.type == "meta"


def test_a_metric_that_nobody_placed_follows_its_first_batch():
    metric = MulticlassAccuracy(3)
    metric.update(torch.zeros(2, 3, device="meta"), torch.zeros(2, dtype=torch.long, device="meta"))
    assert metric.device.type == "meta"


@pytest.mark.parametrize(
    "metric",
    [
        MulticlassAccuracy(3),
        MulticlassF1Score(60),
        BinaryAccuracy(),
        MulticlassAccuracy(3, ignore_index=-1),
        MeanMetric(),
    ],
)
def test_update_and_forward_read_no_value_back(metric):
    # Tensors on "meta" have no values: whatever waits for one raises.
    classes = getattr(metric, "num_classes", 0)
    batch = (torch.zeros(4, classes, device="meta"), torch.zeros(4, device="meta", dtype=torch.long))
    if not classes:
        batch = (torch.zeros(4, device="meta"), batch[1])[: 1 if isinstance(metric, MeanMetric) else 2]
    metric.update(*batch)
    assert metric(*batch).device.type == "meta"


def test_states_made_or_changed_in_inference_mode_work_outside_of_it():
    metrics = [Everything(), MeanMetric(), MulticlassAccuracy(3)]
    batches = [(torch.tensor(1.0),), (torch.tensor([1.0]),), (torch.tensor([1]), torch.tensor([1]))]
    with torch.inference_mode():
        inside = Everything()
        for metric, batch in zip([*metrics, inside], [*batches, batches[0]], strict=True):
            metric.reset()
            metric(*batch)
            metric.update(*(b.clone() for b in batch))
    for metric, batch in zip([*metrics, inside], [*batches, batches[0]], strict=True):
        metric.update(*batch)
        metric(*batch)
        metric.compute()
        assert metric.update_count == 4


def test_a_failed_update_does_not_count():
    metric = Everything()
    with pytest.raises(TypeError):
        metric.update("three")
    assert metric.update_count == 0
    metric.update(torch.tensor(1.0))
    assert metric.update_count == 1


def test_super_update_and_super_compute_count_once():
    class Twice(SumMetric):
        def update(self, value):
            super().update(value)
            super().update(value)

        def compute(self):
            return 10 * super().compute()

    metric = Twice()
    metric.update(1.0)
    assert (metric.update_count, metric.compute()) == (1, 20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("total", torch.tensor(0.0), "cat"), "dist_reduce_fx of state 'total' must be 'sum'.*got 'cat'"),
        (("seen", [], "sum"), "must be 'cat' or None for a list; got 'sum'"),
        (("total", 0.0, "sum"), "must be a tensor or an empty list; got 0.0"),
        (("update", torch.tensor(0.0), "sum"), "free attribute name; got 'update'"),
    ],
)
def test_wrong_states_are_named(arguments, says):
    with pytest.raises(MetricValueError, match=says):
        Everything().add_state(*arguments)
    with pytest.raises(MetricValueError, match="weight_of belongs to 'mean' states only"):
        Everything().add_state("more", torch.tensor(0.0), "sum", weight_of="total")


def test_unknown_keywords_raise_and_a_near_one_is_offered():
    with pytest.raises(MetricTypeError, match="no argument 'sync_on_computed'; did you mean 'sync_on_compute'"):
        SumMetric(sync_on_computed=False)
    with pytest.raises(MetricValueError, match="validate must be 'deferred' or 'eager'; got 'late'"):
        SumMetric(validate="late")


def test_merge_state_takes_a_metric_or_its_states():
    first, second = Everything(), Everything()
    first.update(torch.tensor(2.0))
    second.update(torch.tensor(3.0))
    first.merge_state(second)
    first.merge_state(second.export_states())
    value = first.compute()
    assert (value["total"], value["product"], first.update_count) == (8, 18, 3)
    with pytest.raises(MetricValueError, match="merge_state needs equal states"):
        first.merge_state(SumMetric())
    with pytest.raises(MetricValueError, match="missing"):
        first.merge_state({"total": torch.tensor(1.0)})


def test_synced_states_are_held_for_a_block_only():
    metric = SumMetric()
    metric.update(1.0)
    world = {**metric.export_states(), "sum_value": torch.tensor(7.0, dtype=torch.float64)}
    with metric.synced(world):
        assert metric.compute() == 7
        with pytest.raises(MetricError, match="states of all ranks"):
            metric.update(1.0)
        with pytest.raises(MetricError, match="states of all ranks"):
            metric(1.0)
    assert metric.compute() == 1
    with pytest.raises(MetricValueError, match="'nans' is missing"), metric.synced({"sum_value": torch.tensor(1.0)}):
        pass
    metric.update(1.0)
    assert metric.compute() == 2


OPERATIONS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_arithmetic_gives_metrics(operation):
    high, low = MaxMetric(), MinMetric()
    for metric in (
        operation(high, low),
        operation(high, 2.0),
        operation(2.0, high),
        operation(high, torch.tensor(2.0)),
    ):
        assert isinstance(metric, CompositionalMetric)
    metric = pickle.loads(pickle.dumps(operation(high, low)))
    metric.update(torch.tensor([3.0, 5.0]))
    metric.update(torch.tensor([4.0]))
    assert metric.compute() == operation(torch.tensor(5.0), torch.tensor(3.0))
    assert metric(torch.tensor([7.0, 2.0])) == operation(torch.tensor(7.0), torch.tensor(2.0))
    assert metric.compute() == operation(torch.tensor(7.0), torch.tensor(2.0))


@pytest.mark.parametrize(("operation", "expected"), [(operator.neg, 5.0), (operator.pos, -5.0), (abs, 5.0)])
def test_signs_mean_what_they_say(operation, expected):
    metric = SumMetric()
    metric.update(-5.0)
    assert operation(metric).compute() == expected


def test_an_element_of_a_metric_is_a_metric_that_can_be_pickled():
    first = pickle.loads(pickle.dumps(MulticlassAccuracy(3, average="none")[0]))
    first.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
    assert first.compute() == 1.0
    with pytest.raises(MetricTypeError, match="can not be iterated"):
        list(MulticlassAccuracy(3))


def test_a_metric_that_occurs_twice_is_updated_once():
    total = SumMetric()
    metric = total * 2 + total
    assert metric(3.0) == 9
    metric.update(1.0)
    assert (total.update_count, metric.update_count, metric.compute()) == (2, 2, 12)
    total.update(1.0)
    assert metric.compute() == 15
    metric.reset()
    assert total.update_count == 0


def test_equality_is_identity():
    first, second = SumMetric(), SumMetric()
    assert second not in [first]
    assert len({first, second, first}) == 2


def test_the_f_score_can_be_written_down():
    precision, recall = MulticlassF1Score(3, average="micro"), MulticlassAccuracy(3, average="micro")
    harmonic = 2 * precision * recall / (precision + recall)
    preds, target = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2])
    assert harmonic(preds, target) == pytest.approx(2 / 3)
    other = harmonic.clone()
    other.merge_state(harmonic)
    assert other.update_count == 2
