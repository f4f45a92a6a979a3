"""Accuracy, F1 and confusion matrix against scikit-learn, over tasks, averages, dtypes, shapes and batches."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, multilabel_confusion_matrix, recall_score

from leyden.metrics import (
    Accuracy,
    BinaryAccuracy,
    BinaryConfusionMatrix,
    BinaryF1Score,
    ConfusionMatrix,
    F1Score,
    MetricValueError,
    MetricWarning,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelConfusionMatrix,
    MultilabelF1Score,
    functional,
)

CLASSES, LABELS = 5, 3
AVERAGES = ["micro", "macro", "weighted", "none"]


def in_batches(metric, preds, target, sizes=(7, 20, 1, 0)):
    start = 0
    for size in (*sizes, len(target)):
        metric(preds[start : start + size], target[start : start + size])
        start += size
    return metric.compute()


def close(value, expected):
    np.testing.assert_allclose(value.numpy(), np.asarray(expected), rtol=1e-5, atol=1e-6)


def seen_classes(preds, target):
    return sorted({*preds.tolist(), *target.tolist()})


def multiclass_data(kind, dtype=torch.float32, extra=()):
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, CLASSES, (64, *extra), generator=generator)
    scores = torch.randn(64, CLASSES, *extra, generator=generator).to(dtype)
    labels = scores.argmax(1)
    return {"labels": labels, "logits": scores, "probs": scores.softmax(1)}[kind], labels, target


def expected_multiclass(name, average, labels, target):
    labels, target = labels.flatten().numpy(), target.flatten().numpy()
    everything = list(range(CLASSES))
    if name == "accuracy":
        if average == "micro":
            return accuracy_score(target, labels)
        return recall_score(target, labels, labels=everything, average=_sk(average), zero_division=0)
    return f1_score(target, labels, labels=everything, average=_sk(average), zero_division=0)


def _sk(average):
    return None if average == "none" else average


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", ["labels", "logits", "probs"])
@pytest.mark.parametrize(("name", "cls"), [("accuracy", MulticlassAccuracy), ("f1", MulticlassF1Score)])
def test_multiclass_scores_agree_with_scikit_learn(name, cls, kind, average):
    preds, labels, target = multiclass_data(kind)
    close(in_batches(cls(CLASSES, average=average), preds, target), expected_multiclass(name, average, labels, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("target_dtype", [torch.int64, torch.int32, torch.uint8])
def test_every_dtype_of_preds_and_target_is_taken(dtype, target_dtype):
    preds, _, target = multiclass_data("logits", dtype)
    value = in_batches(MulticlassAccuracy(CLASSES, average="micro"), preds, target.to(target_dtype))
    close(value, accuracy_score(target, preds.argmax(1)))


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_more_dimensions_count_as_more_samples(kind):
    preds, labels, target = multiclass_data(kind, extra=(4, 2))
    close(in_batches(MulticlassF1Score(CLASSES), preds, target), expected_multiclass("f1", "macro", labels, target))


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("name", "cls"), [("accuracy", MulticlassAccuracy), ("f1", MulticlassF1Score)])
def test_samplewise_gives_one_value_per_sample(name, cls, average):
    preds, labels, target = multiclass_data("logits", extra=(30,))
    metric = cls(CLASSES, average=average, multidim_average="samplewise")
    value = in_batches(metric, preds, target)
    assert value.shape == ((64, CLASSES) if average == "none" else (64,))
    for row in range(64):
        # 30 draws hold every class here, so that absent classes play no part.
        close(value[row], expected_multiclass(name, average, labels[row], target[row]))


@pytest.mark.parametrize("ignore_index", [2, -1, 255])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@pytest.mark.parametrize("classes", [CLASSES, 40])
def test_ignored_targets_do_not_count(ignore_index, average, classes):
    preds, labels, target = multiclass_data("logits")
    preds = torch.cat([preds, preds.new_full((64, classes - CLASSES), -50.0)], 1)
    target = torch.where(torch.rand(64, generator=torch.Generator().manual_seed(0)) < 0.3, ignore_index, target)
    value = in_batches(MulticlassAccuracy(classes, average=average, ignore_index=ignore_index), preds, target)
    keep = target != ignore_index
    kept, truth = labels[keep].numpy(), target[keep].numpy()
    if average == "micro":
        close(value, accuracy_score(truth, kept))
    else:
        among = [c for c in seen_classes(kept, truth) if c != ignore_index]
        close(value, recall_score(truth, kept, labels=among, average=average, zero_division=0))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_counts_targets_among_the_highest_scores(k):
    preds, _, target = multiclass_data("logits")
    hits = (preds.topk(k, 1).indices == target[:, None]).any(1)
    close(in_batches(MulticlassAccuracy(CLASSES, top_k=k, average="micro"), preds, target), hits.float().mean())
    per_class = [hits[target == c].float().mean() for c in range(CLASSES)]
    close(in_batches(MulticlassAccuracy(CLASSES, top_k=k, average="none"), preds, target), per_class)


def test_many_classes_count_the_same_without_a_matrix():
    generator = torch.Generator().manual_seed(5)
    target, preds = torch.randint(0, 100, (2, 500), generator=generator)
    metric = MulticlassF1Score(100)
    assert "confmat" not in metric.state_specs()
    among = seen_classes(preds, target)
    close(in_batches(metric, preds, target), f1_score(target, preds, labels=among, average="macro", zero_division=0))


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_multiclass_confusion_matrix_agrees_with_scikit_learn(normalize):
    preds, labels, target = multiclass_data("logits")
    value = in_batches(MulticlassConfusionMatrix(CLASSES, normalize=normalize), preds, target)
    close(value, confusion_matrix(target, labels, labels=range(CLASSES), normalize=normalize))


def binary_data(kind, shape=(64,)):
    generator = torch.Generator().manual_seed(11)
    target = torch.randint(0, 2, shape, generator=generator)
    logits = torch.randn(shape, generator=generator) * 3
    return {"labels": (logits > 0).long(), "logits": logits, "probs": logits.sigmoid()}[kind], target


@pytest.mark.parametrize("kind", ["labels", "logits", "probs"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_binary_scores_agree_with_scikit_learn(kind, threshold):
    preds, target = binary_data(kind)
    labels = preds if kind == "labels" else (binary_data("probs")[0] > threshold).long()
    if kind == "logits" and threshold == 1.0:
        labels = torch.zeros_like(labels)
    close(in_batches(BinaryAccuracy(threshold), preds, target), accuracy_score(target, labels))
    close(in_batches(BinaryF1Score(threshold), preds, target), f1_score(target, labels, zero_division=0))
    matrix = in_batches(BinaryConfusionMatrix(threshold), preds, target)
    close(matrix, confusion_matrix(target, labels, labels=[0, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("target_dtype", [torch.int64, torch.bool, torch.uint8, torch.float32])
def test_binary_tasks_take_every_dtype(dtype, target_dtype):
    preds, target = binary_data("probs")
    preds = preds.to(dtype)
    value = in_batches(BinaryAccuracy(), preds, target.to(target_dtype))
    close(value, accuracy_score(target, preds > 0.5))


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", ["labels", "logits", "probs"])
def test_multilabel_scores_agree_with_scikit_learn(kind, average):
    preds, target = binary_data(kind, (64, LABELS))
    labels = binary_data("labels", (64, LABELS))[0]
    close(
        in_batches(MultilabelF1Score(LABELS, average=average), preds, target),
        f1_score(target, labels, average=_sk(average), zero_division=0),
    )
    per_label = [accuracy_score(target[:, i], labels[:, i]) for i in range(LABELS)]
    support = target.sum(0).numpy()
    expected = {
        "micro": np.mean(per_label),
        "macro": np.mean(per_label),
        "weighted": np.average(per_label, weights=support),
        "none": per_label,
    }
    close(in_batches(MultilabelAccuracy(LABELS, average=average), preds, target), expected[average])
    matrix = in_batches(MultilabelConfusionMatrix(LABELS), preds, target)
    close(matrix, multilabel_confusion_matrix(target, labels))


def test_multilabel_samplewise_and_ignored_targets():
    preds, target = binary_data("probs", (6, LABELS, 20))
    target = torch.where(torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.2, -100, target)
    metric = MultilabelF1Score(LABELS, average="none", multidim_average="samplewise", ignore_index=-100)
    value = in_batches(metric, preds, target, sizes=(2, 1))
    for n in range(6):
        for label in range(LABELS):
            keep = target[n, label] != -100
            expected = f1_score(target[n, label][keep], preds[n, label][keep] > 0.5, zero_division=0)
            close(value[n, label], expected)


def test_binary_ignored_targets_may_have_any_prediction():
    preds = torch.tensor([0.9, float("nan"), 0.2, 70.0])
    target = torch.tensor([1, -1, 1, -1])
    metric = BinaryAccuracy(ignore_index=-1)
    metric.update(preds, target)
    assert metric.compute() == 0.5


@pytest.mark.parametrize("size", [100, 20_000])
def test_few_and_many_scores_are_counted_alike(size):
    preds, target = torch.randn(size, generator=torch.Generator().manual_seed(4)), torch.ones(size).long()
    for threshold in (0.2, 0.5, 0.8):
        metric = BinaryAccuracy(threshold)
        metric.update(preds, target)
        close(metric.compute(), (preds.sigmoid() > threshold).float().mean())


def test_a_class_that_nobody_predicted_or_had_is_left_out_of_the_macro_mean():
    preds, target = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert MulticlassAccuracy(5)(preds, target) == 0.25
    assert MulticlassAccuracy(5)(torch.tensor([2, 2]), torch.tensor([2, 2])) == 1.0


@pytest.mark.parametrize("zero_division", [0, 1])
def test_zero_division_is_the_value_of_an_undefined_score(zero_division):
    metric = BinaryF1Score(zero_division=zero_division)
    assert metric(torch.tensor([0, 0]), torch.tensor([0, 0])) == zero_division


@pytest.mark.parametrize(
    "metric", [BinaryAccuracy(), MulticlassAccuracy(3), MultilabelF1Score(2), MulticlassConfusionMatrix(3)]
)
def test_without_data_the_value_is_zero_and_a_warning_says_so(metric):
    with pytest.warns(MetricWarning, match="before any update"):
        assert metric.compute().sum() == 0
    empty = torch.zeros((0, 2), dtype=torch.long) if "label" in type(metric).__name__ else torch.zeros(0).long()
    metric.update(empty, empty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.compute().sum() == 0


labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(labels, st.lists(st.integers(1, 39), max_size=3), st.sampled_from(AVERAGES))
def test_batches_do_not_matter_and_scikit_learn_agrees(pairs, cuts, average):
    preds, target = torch.tensor(pairs).unbind(1)
    metric = MulticlassF1Score(4, average=average)
    edges = sorted({0, len(pairs), *(c for c in cuts if c < len(pairs))})
    for start, end in itertools.pairwise(edges):
        metric.update(preds[start:end], target[start:end])
    among = list(range(4)) if average == "none" else seen_classes(preds, target)
    close(metric.compute(), f1_score(target, preds, labels=among, average=_sk(average), zero_division=0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 1)), min_size=2, max_size=30),
    st.integers(1, 29),
    st.floats(0.05, 0.95),
)
def test_how_scores_are_read_depends_on_the_whole_epoch_only(pairs, cut, threshold):
    scores, target = torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])
    whole, cut_up = BinaryConfusionMatrix(threshold), BinaryConfusionMatrix(threshold)
    whole.update(scores, target)
    cut_up.update(scores[:cut], target[:cut])
    cut_up.update(scores[cut:], target[cut:])
    assert torch.equal(whole.compute(), cut_up.compute())


@pytest.mark.parametrize(
    ("task", "arguments", "names"),
    [
        ("binary", {}, "Binary"),
        ("multiclass", {"num_classes": CLASSES}, "Multiclass"),
        ("multilabel", {"num_labels": LABELS}, "Multilabel"),
    ],
)
@pytest.mark.parametrize("door", [Accuracy, F1Score, ConfusionMatrix])
def test_a_front_door_builds_the_class_of_its_task(door, task, arguments, names):
    metric = door(task=task, **arguments)
    assert type(metric).__name__ == f"{names}{door.__name__}"
    assert isinstance(metric, door)
    data = {"binary": binary_data("probs"), "multilabel": binary_data("probs", (64, LABELS))}
    preds, target = data.get(task) or multiclass_data("logits")[::2]
    function = getattr(
        functional, {"Accuracy": "accuracy", "F1Score": "f1_score"}.get(door.__name__, "confusion_matrix")
    )
    assert torch.equal(function(preds, target, task, **arguments), metric(preds, target))
    of_task = getattr(functional, f"{task}_{function.__name__}")
    if door is ConfusionMatrix:
        assert torch.equal(of_task(preds, target, **arguments), metric.compute())


def test_a_front_door_averages_micro_and_the_class_macro():
    assert Accuracy(task="multiclass", num_classes=3).average == "micro"
    assert MulticlassAccuracy(3).average == "macro"
    assert "average='macro'" in repr(MulticlassAccuracy(3))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Accuracy(task="multi"), "task must be one of 'binary', 'multiclass', 'multilabel'; got 'multi'"),
        (lambda: Accuracy(task="multiclass"), "needs num_classes"),
        (lambda: MulticlassAccuracy(1), "num_classes must be an integer of at least 2; got 1"),
        (lambda: MulticlassAccuracy(3, top_k=4), "top_k must be an integer from 1 to 3; got 4"),
        (lambda: MulticlassAccuracy(3, average="mean"), "average must be one of .*; got 'mean'"),
        (lambda: BinaryAccuracy(threshold=2.0), "threshold must be a float from 0 to 1; got 2.0"),
        (lambda: BinaryAccuracy(input="scores"), "input must be one of .*; got 'scores'"),
        (lambda: BinaryAccuracy(ignore_index=0.5), "ignore_index must be an integer or None; got 0.5"),
        (lambda: BinaryF1Score(zero_division=2), "zero_division must be one of 0, 1; got 2"),
        (lambda: MulticlassConfusionMatrix(3, normalize="rows"), "normalize must be one of .*; got 'rows'"),
        (lambda: MulticlassAccuracy(3, multidim_average="each"), "multidim_average must be one of .*; got 'each'"),
    ],
)
def test_wrong_arguments_are_named(build, says):
    with pytest.raises(MetricValueError, match=says):
        build()


@pytest.mark.parametrize(
    ("metric", "preds", "target", "says"),
    [
        (MulticlassAccuracy(3), torch.zeros(4, 5), torch.zeros(4).long(), "C = num_classes = 3; got preds .4, 5."),
        (MulticlassAccuracy(3), torch.zeros(4), torch.zeros(5).long(), "got preds .4,. and target .5,."),
        (MulticlassAccuracy(3), torch.zeros(4, 3).long(), torch.zeros(4).long(), "floating point"),
        (
            MulticlassAccuracy(3, top_k=2),
            torch.zeros(4).long(),
            torch.zeros(4).long(),
            "top_k=2 needs preds with scores",
        ),
        (BinaryAccuracy(), torch.zeros(4), torch.zeros(4, 1).long(), "same shape"),
        (MultilabelAccuracy(3), torch.zeros(4, 2), torch.zeros(4, 2).long(), "num_labels = 3"),
    ],
)
def test_wrong_shapes_raise_at_once(metric, preds, target, says):
    with pytest.raises(MetricValueError, match=says):
        metric.update(preds, target)
