"""Results that were silently wrong elsewhere, each with the right one."""

import subprocess
import sys

import pytest
import torch

from leyden.metrics import (
    BinaryAccuracy,
    BinaryF1Score,
    MeanMetric,
    Metric,
    MetricCollection,
    MetricValueError,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAccuracy,
    SumMetric,
)


class MeanError(Metric):
    def __init__(self, absolute):
        super().__init__()
        self.absolute = absolute
        self.add_state("error", torch.tensor(0.0), "sum")
        self.add_state("total", torch.tensor(0), "sum")

    def update(self, preds, target):
        error = preds - target
        self.error += (error.abs() if self.absolute else error).sum()
        self.total += target.numel()

    def compute(self):
        return self.error / self.total


class KeepsAll(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("seen", [], "cat")

    def update(self, value):
        self.seen.append(value)

    def compute(self):
        return torch.cat(self.seen).sum()


class Unweighted(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("level", torch.tensor(0.0), "mean")

    def update(self, value):
        self.level = (self.level * self.update_count + value) / (self.update_count + 1)

    def compute(self):
        return self.level


def test_a_equal_first_batches_do_not_merge_metrics_with_other_arguments():
    metrics = MetricCollection({"low": BinaryAccuracy(0.5), "high": BinaryAccuracy(0.7)})
    metrics.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    metrics.update(torch.tensor([0.6, 0.6]), torch.tensor([0, 0]))
    assert metrics.compute() == {"low": 0.5, "high": 1.0}


def test_a_equal_first_batches_do_not_merge_metrics_that_ignore_other_labels():
    metrics = MetricCollection({"all": MulticlassAccuracy(3), "some": MulticlassAccuracy(3, ignore_index=2)})
    metrics.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    metrics.update(torch.tensor([0]), torch.tensor([2]))
    assert metrics["some"].compute() == 1.0
    assert metrics["all"].compute() < 1.0


def test_a_equal_first_batches_do_not_merge_metrics_of_users():
    metrics = MetricCollection({"mae": MeanError(True), "bias": MeanError(False)})
    metrics.update(torch.tensor([3.0]), torch.tensor([2.0]))
    metrics.update(torch.tensor([0.0]), torch.tensor([3.0]))
    assert metrics.compute() == {"mae": 2.0, "bias": -1.0}


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.type(torch.bfloat16)])
def test_b_casting_the_model_does_not_touch_the_states(cast):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.total = SumMetric()

    model = cast(Model())
    for _ in range(1000):
        model.total.update(torch.tensor(1.0, dtype=model.layer.weight.dtype))
    assert model.total.compute() == 1000.0


@pytest.mark.parametrize("cls", [MulticlassAccuracy, MulticlassF1Score, MulticlassConfusionMatrix])
@pytest.mark.parametrize("classes", [3, 50])
def test_c_labels_out_of_range_in_preds_raise_and_are_not_another_class(cls, classes):
    metric = cls(classes)
    metric.update(torch.tensor([classes + 1]), torch.tensor([0]))
    with pytest.raises(
        MetricValueError, match=rf"{cls.__name__} .* label {classes + 1} in `preds`.* 0 to {classes - 1}"
    ):
        metric.compute()


@pytest.mark.parametrize("value", [7, 9, -7, -1])
@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize("classes", [3, 50])
def test_d_labels_out_of_range_in_target_raise_beside_scores(value, average, classes):
    metric = MulticlassAccuracy(classes, average=average)
    wrong = value if value < 0 else classes + value
    metric.update(torch.randn(4, classes), torch.tensor([0, wrong, 1, 2]))
    metric.update(torch.randn(4, classes), torch.tensor([0, 1, 1, 2]))
    with pytest.raises(MetricValueError, match=rf"MulticlassAccuracy .* label {wrong} in `target`"):
        metric.compute()
    metric.reset()
    metric.update(torch.randn(4, classes), torch.tensor([0, 1, 1, 2]))
    metric.compute()


@pytest.mark.parametrize("metric", [BinaryAccuracy(), BinaryF1Score()])
def test_d_labels_out_of_range_raise_in_binary_tasks(metric):
    metric.update(torch.tensor([0.2, 0.7]), torch.tensor([0, 7]))
    with pytest.raises(MetricValueError, match="label 7 in `target`; it must be from 0 to 1"):
        metric.compute()


def test_d_a_label_that_is_no_whole_number_raises():
    metric = MultilabelAccuracy(2)
    metric.update(torch.tensor([[0.2, 0.7]]), torch.tensor([[0.0, 0.5]]))
    with pytest.raises(MetricValueError, match="no whole number in `target`"):
        metric.compute()


def test_d_eager_validation_raises_in_update_and_none_at_all_if_switched_off():
    with pytest.raises(MetricValueError, match="label 7 in `target`"):
        MulticlassAccuracy(3, validate="eager").update(torch.randn(1, 3), torch.tensor([7]))
    unchecked = MulticlassAccuracy(3, validate_args=False)
    unchecked.update(torch.randn(1, 3), torch.tensor([7]))
    unchecked.compute()


@pytest.mark.parametrize("sizes", [[6], [3, 3], [1, 2, 3], [1] * 6])
def test_f_how_scores_are_read_does_not_depend_on_the_batches(sizes):
    scores = torch.tensor([0.2, 0.9, 0.4, 2.0, -1.0, 0.3])
    target = torch.tensor([1, 1, 0, 1, 0, 1])
    metric = BinaryAccuracy()
    for preds, labels in zip(scores.split(sizes), target.split(sizes), strict=True):
        metric.update(preds, labels)
    assert metric.compute() == pytest.approx(5 / 6)


def test_f_a_batch_value_reads_scores_as_the_epoch_so_far():
    metric = BinaryAccuracy()
    metric.update(torch.tensor([5.0]), torch.tensor([1]))
    assert metric(torch.tensor([0.3]), torch.tensor([1])) == 1.0


def test_f_the_reading_can_be_given():
    preds, target = torch.tensor([0.3]), torch.tensor([1])
    assert BinaryAccuracy(input="logits")(preds, target) == 1.0
    assert BinaryAccuracy(input="probs")(preds, target) == 0.0
    metric = BinaryAccuracy(input="probs")
    metric.update(torch.tensor([1.5]), target)
    with pytest.raises(MetricValueError, match=r"given 1.5 in `preds`, but input='probs'.*input='logits'"):
        metric.compute()


@pytest.mark.parametrize(
    ("metric", "shape"), [(MulticlassAccuracy(3), (2, 3)), (BinaryAccuracy(), (2,)), (MulticlassAccuracy(50), (2, 50))]
)
def test_g_nan_in_scores_raises(metric, shape):
    scores = torch.zeros(shape)
    scores.view(-1)[0] = float("nan")
    metric.update(scores, torch.tensor([0, 1]))
    with pytest.raises(MetricValueError, match="nan in `preds`"):
        metric.compute()


def test_h_weights_count_without_nan_checks():
    metric = MeanMetric(nan_strategy="disable")
    metric.update(torch.tensor([1.0, 3.0]), weight=torch.tensor([1.0, 0.0]))
    assert metric.compute() == 1.0


def test_i_weights_past_two_to_the_24_still_count():
    metric = MeanMetric()
    metric.update(0.0, weight=float(2**24))
    for _ in range(1000):
        metric.update(1.0)
    assert metric.weight == 2**24 + 1000


def test_j_half_precision_is_summed_in_wide_numbers():
    metric = SumMetric()
    metric.update(torch.ones(70_000, dtype=torch.float16))
    assert metric.compute() == 70_000


def test_l_merging_makes_the_value_stale():
    metric, other = SumMetric(), SumMetric()
    metric.update(1.0)
    other.update(2.0)
    assert metric.compute() == 1.0
    metric.merge_state(other)
    assert metric.compute() == 3.0


def test_l_merging_means_weighs_them_by_their_updates():
    many, one = Unweighted(), Unweighted()
    for _ in range(3):
        many.update(1.0)
    one.update(5.0)
    many.merge_state(one)
    assert many.compute() == 2.0
    assert many.update_count == 4


def test_m_growing_states_do_not_keep_the_graph_of_the_model():
    metric = KeepsAll()
    weight = torch.ones(3, requires_grad=True)
    metric.update(weight * 2)
    metric(weight * 2)
    assert not any(item.requires_grad for item in metric.seen)


def test_m_a_differentiable_metric_keeps_no_graph_either_nor_one_behind_a_plain_tensor():
    class Pairs(KeepsAll):
        is_differentiable = True

        def update(self, value):
            self.seen.append(value)
            self.seen.append(value.detach())

    metric = Pairs()
    weight = torch.ones(3, requires_grad=True)
    assert metric(weight * 2).requires_grad
    metric.update(weight * 2)
    assert len(metric.seen) == 4
    assert not any(item.requires_grad for item in metric.seen)


def test_m_growing_states_do_not_keep_a_larger_storage():
    metric = KeepsAll()
    big = torch.zeros(1_000_000)
    metric.update(big[:2])
    big += 1
    assert metric.compute() == 0.0
    assert metric.seen[0].untyped_storage().nbytes() == 8


@pytest.mark.parametrize("cls", [MulticlassAccuracy, MulticlassF1Score])
def test_o_the_ignored_class_is_no_part_of_the_macro_mean(cls):
    preds, target = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 1])
    value = cls(2, ignore_index=0, average="macro")(preds, target)
    kept = torch.tensor([1, 0, 1]) == 1
    hits = kept.sum() / 3
    assert value == pytest.approx(float(hits if cls is MulticlassAccuracy else 2 * 2 / (2 * 2 + 1)))


def test_p_update_compiles():
    program = """
import torch
from leyden.metrics import MulticlassAccuracy
metric, plain = MulticlassAccuracy(3), MulticlassAccuracy(3)
update = torch.compile(metric.update, backend="eager")
for seed in range(4):
    preds, target = torch.randn(8, 3), torch.randint(0, 3, (8,))
    update(preds, target)
    plain.update(preds, target)
assert torch.equal(metric.compute(), plain.compute()) and metric.update_count == 4
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
