"""Mean, sum, smallest and largest of a stream, against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.metrics import MaxMetric, MeanMetric, MetricValueError, MetricWarning, MinMetric, SumMetric

CASES = [(MeanMetric, np.mean), (SumMetric, np.sum), (MaxMetric, np.max), (MinMetric, np.min)]
numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20)


@pytest.mark.parametrize(("cls", "oracle"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_agrees_with_numpy(cls, oracle, dtype):
    values = (torch.randn(50, generator=torch.Generator().manual_seed(0)) * 10).to(dtype)
    metric = cls()
    for batch in (*values.split(7), torch.zeros(0, dtype=dtype)):
        metric.update(batch)
    assert metric.compute().dtype == torch.float32
    np.testing.assert_allclose(metric.compute().numpy(), oracle(values.double().numpy()), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=5))
def test_single_numbers_and_batches_are_the_same_stream(batches):
    for cls, oracle in CASES:
        metric = cls()
        for batch in batches:
            metric.update(torch.tensor(batch).reshape(1, -1))
            metric(batch[0])
        stream = np.concatenate([[*batch, batch[0]] for batch in batches]).astype(np.float64)
        np.testing.assert_allclose(metric.compute().numpy(), oracle(stream), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.01, 10)), min_size=1, max_size=20))
def test_weighted_mean_agrees_with_numpy(pairs):
    values, weights = np.array(pairs).T
    metric = MeanMetric()
    metric.update(torch.tensor(values), torch.tensor(weights))
    np.testing.assert_allclose(metric.compute().numpy(), np.average(values, weights=weights), rtol=1e-5, atol=1e-5)


def test_a_weight_broadcasts_to_the_values_and_not_the_other_way():
    metric = MeanMetric()
    metric.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 0.0]))
    assert metric.compute() == 2.0
    with pytest.raises(MetricValueError, match="weight must broadcast to the shape of value"):
        metric.update(torch.tensor(1.0), torch.tensor([1.0, 2.0]))


NAN = float("nan")


@pytest.mark.parametrize(("cls", "oracle"), [(MeanMetric, 2.0), (SumMetric, 4.0), (MaxMetric, 3.0), (MinMetric, 1.0)])
def test_nan_is_left_out_and_counted(cls, oracle):
    metric = cls()
    metric.update(torch.tensor([1.0, NAN, 3.0]))
    with pytest.warns(MetricWarning, match="given 1 NaN"):
        assert metric.compute() == oracle
    silent = cls(nan_strategy="ignore")
    silent.update(torch.tensor([NAN, 1.0, 3.0]))
    assert silent.compute() == oracle


@pytest.mark.parametrize("cls", [case[0] for case in CASES])
def test_nan_raises_replaces_or_stays(cls):
    values = torch.tensor([1.0, NAN])
    strict = cls(nan_strategy="error")
    strict.update(values)
    with pytest.raises(MetricValueError, match=r"given 1 NaN.*nan_strategy='ignore'"):
        strict.compute()
    replaced = cls(nan_strategy=1.0)
    replaced.update(values)
    assert replaced.compute() == (2.0 if cls is SumMetric else 1.0)
    kept = cls(nan_strategy="disable")
    kept.update(values)
    assert kept.compute().isnan()
    with pytest.raises(MetricValueError, match="nan_strategy must be"):
        cls(nan_strategy="drop")


def test_nan_in_a_weight_leaves_its_value_out():
    metric = MeanMetric(nan_strategy="ignore")
    metric.update(torch.tensor([1.0, 9.0]), torch.tensor([1.0, NAN]))
    assert metric.compute() == 1.0


def test_the_mean_of_nothing_is_nan():
    with pytest.warns(MetricWarning, match="before any update"):
        assert MeanMetric().compute().isnan()
