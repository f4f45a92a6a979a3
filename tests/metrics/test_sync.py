"""Two processes: one message where everything fits, the same value on both ranks, and errors on both."""

import pickle

import pytest
import torch
import torch.distributed as dist

from leyden.metrics import (
    BinaryAccuracy,
    MaxMetric,
    Metric,
    MetricCollection,
    MetricValueError,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    PlanMismatchError,
    StateSpec,
    SumMetric,
)
from leyden.metrics.sync import reduce_states

pytestmark = pytest.mark.dist


class Collectives:
    """Counts the collectives that a block enters."""

    NAMES = ("all_gather", "all_reduce", "all_gather_into_tensor", "all_gather_object", "barrier", "broadcast")

    def __enter__(self):
        self.calls, self.kept = [], {name: getattr(dist, name) for name in self.NAMES}
        for name, function in self.kept.items():
            setattr(dist, name, self.counted(name, function))
        return self

    def counted(self, name, function):
        def call(*args, **kwargs):
            self.calls.append(name)
            return function(*args, **kwargs)

        return call

    def __exit__(self, *_):
        for name, function in self.kept.items():
            setattr(dist, name, function)


class Kept(Metric):
    """Keeps all it sees: in rank order, uneven, or with nothing on one rank."""

    def __init__(self):
        super().__init__()
        self.add_state("seen", [], dist_reduce_fx=None)

    def update(self, value):
        self.seen.append(value)

    def compute(self):
        return torch.cat([torch.zeros(0), *(item.flatten() for item in self.seen)])


class Level(Metric):
    def __init__(self, weighted=False):
        super().__init__()
        self.add_state("level", torch.zeros(2), "mean", weight_of="amount" if weighted else None)
        if weighted:
            self.add_state("amount", torch.tensor(0.0), "sum")
        self.weighted = weighted

    def update(self, value, amount=1.0):
        if self.weighted:
            both = self.amount + amount
            self.level = (self.level * self.amount + value * amount) / both
            self.amount = both
        else:
            self.level = (self.level * self.update_count + value) / (self.update_count + 1)

    def compute(self):
        return self.level


class Welford(Metric):
    def __init__(self):
        super().__init__()
        for name in ("count", "center", "spread"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64))

    def update(self, values):
        values = values.double()
        self.merge_state({"count": values.numel(), "center": values.mean(), "spread": values.var() * (len(values) - 1)})

    def merge_state(self, incoming):
        if (count := incoming["count"]) == 0:
            return
        both = self.count + count
        distance = incoming["center"] - self.center
        self.spread = self.spread + incoming["spread"] + distance**2 * self.count * count / both
        self.center = self.center + distance * count / both
        self.count = both

    def compute(self):
        return self.spread / (self.count - 1)


class Stacked(Metric):
    """No reduction and no rule: compute sees one value per rank."""

    def __init__(self):
        super().__init__()
        self.add_state("value", torch.tensor(0.0))

    def update(self, value):
        self.value = torch.tensor(value)

    def compute(self):
        return self.value


def data(rank, classes=10, batches=3):
    generator = torch.Generator().manual_seed(rank)
    shape = (batches, 20)
    return torch.randn(*shape, classes, generator=generator), torch.randint(0, classes, shape, generator=generator)


def sync_collection(rank, classes):
    kinds = (MulticlassAccuracy, MulticlassF1Score, MulticlassConfusionMatrix)
    members = {kind.__name__: kind(classes) for kind in kinds} | {"top": MulticlassF1Score(classes, top_k=2)}
    metrics, whole = MetricCollection(members), MetricCollection({n: m.clone() for n, m in members.items()})
    for source in range(2):
        for preds, target in zip(*data(source, classes, 3 - source), strict=True):
            if source == rank:
                metrics.update(preds, target)
            whole.update(preds, target)
    before = {key: str(value) for key, value in metrics.export_states().items()}
    with Collectives() as seen:
        got = metrics.compute()
    assert {key: str(value) for key, value in metrics.export_states().items()} == before
    for metric in whole.values():
        metric.sync_on_compute = False
    expected = whole.compute()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    alone = metrics["top"].compute()
    assert torch.equal(alone, got["top"])
    return seen.calls, {name: value.tolist() for name, value in got.items()}


@pytest.mark.parametrize(("classes", "calls"), [(10, ["all_gather"]), (60, ["all_gather", "all_reduce"])])
def test_a_collection_crosses_ranks_at_once(pool, classes, calls):
    (first, value), (second, other) = pool.run(sync_collection, classes)
    assert first == second == calls
    assert value == other


def sync_lists(rank):
    metric = Kept()
    for step in range(2 * rank):
        metric.update(torch.full((step + 1, 700 * step + 1), float(step)))
    with Collectives() as seen:
        value = metric.compute()
    return seen.calls, value.shape, len(metric.seen), value.sum().item()


def test_small_growing_states_of_any_shape_ride_along_and_may_be_empty(pool):
    calls, shape, total = ["all_gather"], (1 + 2 * 701,), 2 * 701.0
    assert pool.run(sync_lists) == [(calls, shape, 0, total), (calls, shape, 2, total)]


def sync_large_list(rank):
    metric = Kept()
    metric.update(torch.arange(5000.0) + rank)
    metric.update(torch.arange(3.0).to(torch.bfloat16))
    with Collectives() as seen:
        value = metric.compute()
    return seen.calls, value.sum().item()


def test_a_large_growing_state_costs_one_more_gather(pool):
    expected = 2 * 5000 * 4999 / 2 + 5000 + 6
    assert pool.run(sync_large_list) == [(["all_gather", "all_gather"], expected)] * 2


def sync_means(rank):
    plain, weighted = Level(), Level(weighted=True)
    for _ in range(3 if rank == 0 else 1):
        plain.update(torch.tensor([1.0, 2.0]) if rank == 0 else torch.tensor([5.0, 6.0]))
    weighted.update(torch.tensor([1.0, 2.0]) * (rank + 1), amount=3.0 - 2 * rank)
    return plain.compute().tolist(), weighted.compute().tolist()


def test_means_are_weighed_by_their_counts(pool):
    assert pool.run(sync_means) == [([2.0, 3.0], [1.25, 2.5])] * 2


def sync_merged(rank, empty):
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    metric, stacked = Welford(), Stacked()
    mine = values[:30] if rank == 0 else values[30:]
    if empty:
        mine = values if rank == 1 else values[:0]
    if len(mine):
        metric.update(mine)
    stacked.update(float(rank))
    return metric.compute().item(), values.double().var().item(), stacked.compute().tolist()


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.filterwarnings("ignore::leyden.metrics.MetricWarning")
def test_states_without_a_reduction_are_folded_by_the_metric_or_stacked(pool, empty):
    for got, expected, stacked in pool.run(sync_merged, empty):
        assert got == pytest.approx(expected)
        assert stacked == [0.0, 1.0]


def sync_without_data(rank):
    metric = MulticlassAccuracy(3, average="micro")
    if rank == 1:
        metric.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
    return metric.compute().item(), metric.update_count


def test_a_rank_without_data_counts_as_nothing(pool):
    assert pool.run(sync_without_data) == [(0.5, 0), (0.5, 1)]


def sync_reading(rank):
    metric = BinaryAccuracy()
    metric.update(torch.tensor([0.3]) if rank == 0 else torch.tensor([5.0]), torch.tensor([1]))
    return metric.compute().item()


def test_how_scores_are_read_is_decided_over_all_ranks(pool):
    assert pool.run(sync_reading) == [1.0, 1.0]


def sync_wrong_label(rank):
    metric = MulticlassAccuracy(3)
    metric.update(torch.randn(1, 3), torch.tensor([7 if rank == 1 else 0]))
    try:
        metric.compute()
    except MetricValueError as error:
        return str(error)
    return None


def test_a_wrong_value_on_one_rank_raises_on_all(pool):
    first, second = pool.run(sync_wrong_label)
    assert first == second
    assert "label 7 in `target`" in first


def sync_other_arguments(rank):
    metric = MulticlassAccuracy(3 + rank)
    metric.update(torch.tensor([0]), torch.tensor([0]))
    try:
        metric.compute()
    except PlanMismatchError as error:
        return str(error)
    return None


def test_other_arguments_on_another_rank_raise_on_all(pool):
    first, second = pool.run(sync_other_arguments)
    assert first == second
    assert "'confmat' must be" in first
    assert "on rank 1" in first


def sync_missing_keys(rank):
    specs = {
        "both": StateSpec("both", "sum", torch.int64, (2,)),
        "large": StateSpec("large", "max", torch.float32, (4000,), float("-inf")),
        "mine": StateSpec("mine", "min", torch.float32, (), float("inf")),
        "far": StateSpec("far", "cat", torch.float32, None, None),
        "flag": StateSpec("flag", "max", torch.bool, (), 0),
    }
    states = {
        "both": torch.tensor([1, rank]),
        "large": torch.full((4000,), -2.0),
        "mine": torch.tensor(3.0),
        "far": [torch.ones(2, 2)],
        "flag": torch.tensor(rank == 1),
    }
    if rank == 0:
        for name in ("large", "mine", "far"):
            del specs[name], states[name]
    result = reduce_states(specs, states)
    return {
        name: value[0].tolist() if isinstance(value, list) else value.sum().item() for name, value in result.items()
    }


def test_a_key_that_a_rank_lacks_is_neutral(pool):
    expected = {"both": 3, "large": -8000.0, "mine": 3.0, "far": [[1.0, 1.0], [1.0, 1.0]], "flag": 1}
    assert pool.run(sync_missing_keys) == [expected] * 2


def sync_many_keys(rank):
    specs = {f"metric_{i}/{'x' * 40}{i * 7919}": None for i in range(900)}
    specs = {name: StateSpec(name, "sum", torch.float64, ()) for name in specs}
    with Collectives() as seen:
        result = reduce_states(specs, {name: torch.tensor(1.0 + rank, dtype=torch.float64) for name in specs})
    return len(seen.calls) <= 3, {value.item() for value in result.values()}


def test_a_plan_that_is_longer_than_the_first_message(pool):
    assert pool.run(sync_many_keys) == [(True, {3.0})] * 2


def sync_forward(rank):
    local, global_, silent = SumMetric(), SumMetric(dist_sync_on_step=True), SumMetric(sync_on_compute=False)
    values = [metric(1.0 + rank).item() for metric in (local, global_, silent)]
    group = SumMetric(process_group=dist.group.WORLD).clone()
    group.update(1.0 + rank)
    return values, local.compute().item(), silent.compute().item(), group.compute().item(), pickle.dumps(group) != b""


def test_batch_values_are_local_unless_asked_for(pool):
    assert pool.run(sync_forward) == [([1.0, 3.0, 1.0], 3.0, 1.0, 3.0, True), ([2.0, 3.0, 2.0], 3.0, 2.0, 3.0, True)]


def sync_composition(rank):
    total, top = SumMetric(), MaxMetric()
    metric = total / top + total
    metric.update(2.0 * (rank + 1))
    with Collectives() as seen:
        value = metric.compute()
    return value.item(), seen.calls


def test_a_composition_crosses_ranks_at_once(pool):
    assert pool.run(sync_composition) == [(7.5, ["all_gather"])] * 2


def sync_members(rank):
    total = SumMetric()
    metrics = MetricCollection({"part": total / 2, "total": total, "spread": MaxMetric() - total})
    metrics.update(1.0 + rank)
    with Collectives() as seen:
        values = metrics.compute()
    return {name: value.item() for name, value in values.items()}, seen.calls


def test_compositions_in_a_collection_cross_ranks_with_it(pool):
    assert pool.run(sync_members) == [({"part": 1.5, "total": 3.0, "spread": -1.0}, ["all_gather"])] * 2


def sync_functional(rank):
    from leyden.metrics.functional import accuracy

    return accuracy(torch.tensor([0, 1]), torch.tensor([0, rank]), "binary").item()


def test_functions_are_about_their_own_batch(pool):
    assert pool.run(sync_functional) == [0.5, 1.0]
