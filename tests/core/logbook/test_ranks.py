"""The log book of two processes: values of all, one collective at fixed places, and readings that are none."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist

from leyden.core.interfaces import StateSpec
from leyden.core.logbook.book import LogBook
from leyden.core.logbook.results import Results
from leyden.core.loggers import Logger

pytestmark = pytest.mark.dist

NAMES = ("prog_bar", "logger", "on_step", "on_epoch", "reduce_fx", "enable_graph", "sync_dist", "add_dataloader_idx")
DEFAULTS = dict.fromkeys(NAMES) | {"prog_bar": False, "reduce_fx": "mean", "enable_graph": False}
DEFAULTS |= {"add_dataloader_idx": True, "rank_zero_only": False, "sync_dist_group": None}


class Rows(Logger):
    """Keeps the rows."""

    def __init__(self):
        super().__init__()
        self.rows = []

    name, version = "rows", 0

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, {k: v for k, v in metrics.items() if k != "epoch"}))

    def log_hyperparams(self, params, metrics=None):
        pass


class Stage:
    """A log book in the middle of a stage, of two processes or of one."""

    def __init__(self, training=False, module=None, world_size=2, loaders=(None,)):
        self.logger = Rows()
        self.book = LogBook(module, [self.logger], world_size=world_size)
        self.results = Results(training=training, loaders=loaders)
        self.book.begin(self.results)
        self.hook = "training_step" if training else "validation_step"

    def log(self, name, value, batch_size=1, hook=None, **flags):
        assert flags.keys() <= DEFAULTS.keys()
        before = self.book.enter(hook or self.hook)
        self.book.log(name, value, tuple((DEFAULTS | flags).values()), batch_size, None)
        self.book.leave(before)


@contextmanager
def collectives():
    """Names the collectives that a block enters."""
    calls, kept = [], {name: getattr(dist, name) for name in ("all_gather", "all_reduce", "barrier")}

    def counted(name):
        return lambda *args, **kwargs: calls.append(name) or kept[name](*args, **kwargs)

    for name in kept:
        setattr(dist, name, counted(name))
    yield calls
    for name, function in kept.items():
        setattr(dist, name, function)


def numbers(values):
    return {name: value.item() for name, value in values.items()}


# what the data holds: (value, batch size) of each batch, by rank
UNEVEN = ([(1.0, 4), (2.0, 4), (5.5, 1)], [(-3.0, 2)])


def uneven(rank, shares):
    together, alone = Stage(), Stage(world_size=1)
    for source, share in enumerate(shares):
        for value, size in share:
            for stage in [alone] + [together] * (source == rank):
                for reduce in ("mean", "sum", "min", "max"):
                    stage.log(reduce, torch.tensor(value, dtype=torch.float64), size, reduce_fx=reduce)
                stage.log("plain", value, size, prog_bar=True)
    with collectives() as calls:
        results, logged = together.book.end_batches()
    expected, _ = alone.book.end_batches()
    assert {k: v.dtype for k, v in results.items()} == {k: v.dtype for k, v in expected.items()}
    assert logged == results
    assert numbers(results) == pytest.approx(numbers(expected), rel=1e-15)
    assert together.book.progress_bar_metrics == {"plain": results["plain"].item()}
    return calls, numbers(together.book.callback_metrics), list(expected)


@pytest.mark.parametrize("shares", [UNEVEN, (UNEVEN[0], []), ([], UNEVEN[0])], ids=["uneven", "second", "first"])
def test_epoch_values_are_those_of_one_process_also_with_no_data_on_a_rank(pool, shares):
    (calls, values, names), other = pool.run(uneven, shares)
    assert calls == ["all_gather"]
    assert (calls, values, names) == other
    assert sorted(values) == sorted(names)


def nothing(rank):
    stage = Stage(training=True)
    with collectives() as calls:
        stage.book.step_row(0, 0)
        stage.book.agree()
        stage.book.end_batches()
    return calls, stage.logger.rows, dict(stage.book.callback_metrics)


def test_the_collective_is_entered_whether_or_not_anything_was_logged(pool):
    assert pool.run(nothing) == [(["all_gather"] * 3, [], {})] * 2


def steps(rank):
    stage = Stage(training=True)
    stage.log("local", 1.0 + rank)
    stage.log("both", 10.0 + rank, batch_size=1 + 2 * rank, on_epoch=True, sync_dist=True)
    if rank == 1:
        stage.log("far", torch.tensor(0.5, dtype=torch.float64), prog_bar=True)
    with collectives() as reading:
        before = numbers(stage.book.callback_metrics), numbers(stage.book.logged_metrics)
    with collectives() as calls:
        stage.book.step_row(0, 0)
    agreed = numbers(stage.book.callback_metrics)
    row = stage.logger.rows[0][1]
    stage.log("local", 5.0 + rank)
    stage.log("both", 20.0 + rank, batch_size=1 + 2 * rank, on_epoch=True, sync_dist=True)
    between = numbers(stage.book.callback_metrics)
    stage.book.end_batches()
    ended = numbers(stage.book.callback_metrics)
    return reading, before[0]["local"], calls, agreed, row, between, ended


def test_step_values_are_local_until_they_are_agreed_on_or_synced(pool):
    for rank, (reading, local, calls, agreed, row, between, ended) in enumerate(pool.run(steps)):
        assert reading == []
        assert local == 1.0 + rank
        assert calls == ["all_gather"]
        assert agreed == {"local": 1.5, "both": 10.5, "both_step": 10.5, "far": 0.5}
        assert row == {"local": 1.0 + rank, "both_step": 10.5} | ({"far": 0.5} if rank == 1 else {})
        assert (between["local"], between["both"]) == (5.0 + rank, 10.5)
        whole = ((10 + 20) + 3 * (11 + 21)) / 8
        assert ended == {"local": 5.5, "far": 0.5, "both_step": 20.5, "both_epoch": whole, "both": whole}


def rows_without_sync(rank):
    stage = Stage(training=True)
    with collectives() as calls:
        for step in range(3):
            stage.log("loss", float(step + rank))
            stage.book.step_row(step, None)
    with collectives() as later:
        stage.log("late", 1.0 + rank, sync_dist=True)
        stage.book.agree()
        stage.book.step_row(3, None)
    return calls, later, [row["loss"] for _, row in stage.logger.rows], stage.logger.rows[-1][1]["late"]


def test_rows_enter_no_collective_while_nothing_is_synced(pool):
    for rank, (calls, later, losses, late) in enumerate(pool.run(rows_without_sync)):
        assert (calls, later) == (["all_gather"], ["all_gather", "all_gather"])
        assert losses == [0.0 + rank, 1.0 + rank, 2.0 + rank, 2.0 + rank]
        assert late == 1.5


def local_epoch(rank):
    stage = Stage()
    stage.log("loss", 1.0 + rank, sync_dist=False, prog_bar=True)
    results, logged = stage.book.end_batches()
    return numbers(results), numbers(logged), stage.book.progress_bar_metrics, numbers(stage.book.callback_metrics)


def test_without_sync_loggers_see_this_process_and_monitors_all(pool):
    for rank, answer in enumerate(pool.run(local_epoch)):
        own = {"loss": 1.0 + rank}
        assert answer == ({"loss": 1.5}, own, own, {"loss": 1.5})


def rank_zero(rank):
    stage = Stage(training=True)
    if rank == 0:
        stage.log("mine", 1.0, on_epoch=True, rank_zero_only=True)
    stage.log("ours", 1.0, on_epoch=True)
    _, logged = stage.book.end_batches()
    return numbers(logged), numbers(stage.book.callback_metrics)


def test_a_value_of_rank_zero_alone_can_not_be_monitored(pool):
    ours = {"ours": 1.0, "ours_epoch": 1.0, "ours_step": 1.0}
    assert pool.run(rank_zero) == [
        ({"mine_epoch": 1.0, "ours_epoch": 1.0}, ours),
        ({"ours_epoch": 1.0}, ours),
    ]


def loaders(rank):
    stage = Stage(loaders=[None, "far"])
    found, rows = [], []
    for index in range(2):
        stage.results.select(index)
        stage.results.on_epoch = False
        for batch in range(1 + rank):
            stage.log("loss", float(index + batch), on_step=True, sync_dist=True)
            stage.log("local", float(rank), on_step=True)
            stage.book.step_row(batch, None)
        found.append(numbers(stage.book.end_batches()[0]))
    stage.results.select(None)
    stage.log("end", float(rank), hook="on_validation_epoch_end")
    found.append(numbers(stage.book.agree()[0]))
    for step, row in stage.logger.rows:
        rows.append((step, row))
    return found, rows, numbers(stage.book.callback_metrics)


def test_loaders_cross_one_by_one_and_steps_of_an_evaluation_at_their_end(pool):
    (found, rows, monitored), (others, other_rows, other_monitored) = pool.run(loaders)
    assert found == others
    assert found[0] == pytest.approx({"loss_epoch/dataloader_idx_0": 1 / 3, "local_epoch/dataloader_idx_0": 2 / 3})
    assert found[1]["loss_epoch/dataloader_idx_1"] == pytest.approx(4 / 3)
    assert found[2] == {"end": 0.5}
    assert monitored == other_monitored
    assert monitored["loss_epoch/far"] == monitored["loss/dataloader_idx_1"]
    synced = [row for row in rows if any("loss" in name for name in row[1])]
    assert synced == [row for row in other_rows if any("loss" in name for name in row[1])]
    first, second = "loss_step/dataloader_idx_0", "loss_step/far"
    assert synced == [(0, {first: 0.0}), (1, {first: 1.0}), (0, {second: 1.0}), (1, {second: 2.0})]


def mismatch(rank, flags):
    stage = Stage()
    stage.log("loss", 1.0, **(flags if rank == 1 else {}))
    try:
        stage.book.end_batches()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("flags", [{"reduce_fx": "max"}, {"prog_bar": True}, {"sync_dist": False}, {"on_step": True}])
def test_other_arguments_on_another_rank_raise_on_both(pool, flags):
    first, second = pool.run(mismatch, flags)
    assert first == second
    assert "`self.log('loss', ...)` in `validation_step` must have the same arguments" in first


class Counts(torch.nn.Module):
    """Counts in integers, and hands its state over."""

    def __init__(self):
        super().__init__()
        self.sync_on_compute = True
        self.batch_value = None
        self.reset()

    def update(self, value):
        self.total = self.total + value

    def forward(self, value):
        self.update(value)
        self.batch_value = torch.tensor(float(value))

    def compute(self):
        assert self.held, "another collective would begin"
        return self.total - 2**60

    def reset(self):
        self.total, self.held = torch.tensor(0), False

    def state_specs(self):
        return {"total": StateSpec("total", "sum", torch.int64, (), 0)}

    def export_states(self):
        return {"total": self.total}

    @contextmanager
    def synced(self, states):
        before, self.total, self.held = (self.total, self.held), states["total"], True
        yield
        self.total, self.held = before


class Average(torch.nn.Module):
    """A metric that synchronises itself, as others do."""

    def __init__(self):
        super().__init__()
        self.reset()

    def update(self, value):
        self.values[0] += value
        self.values[1] += 1

    def compute(self):
        both = self.values.clone()
        dist.all_reduce(both)
        return both[0] / both[1]

    def reset(self):
        self.values = torch.zeros(2)


def metrics(rank, lacking):
    module = torch.nn.Module()
    module.counts, module.average = Counts(), Average()
    stage = Stage(module=module)
    if rank != lacking:
        for _ in range(2):
            module.counts(2**59 + rank if lacking is None else 2**59)
            module.average.update(torch.tensor(1.0 + rank))
            stage.log("counts", module.counts)
            stage.log("again", module.counts)
            stage.log("average", module.average)
    with collectives() as calls:
        results, _ = stage.book.end_batches()
        published = numbers(stage.book.callback_metrics)
    stage.results.clear()
    return calls, numbers(results), published, module.counts.total.item(), module.average.values.tolist()


@pytest.mark.parametrize("lacking", [None, 0, 1])
def test_metrics_cross_with_their_states_or_by_themselves(pool, lacking):
    (calls, results, published, *cleared), other = pool.run(metrics, lacking)
    assert (calls, results, published, *cleared) == other
    assert calls == ["all_gather", "all_reduce", "all_gather"]
    counted = 2**60 + 2 if lacking is None else 0
    average = {None: 1.5, 0: 2.0, 1: 1.0}[lacking]
    assert results == published == {"counts": counted, "again": counted, "average": average}
    assert cleared == [0, [0.0, 0.0]]


def metric_alone(rank):
    module = torch.nn.Module()
    module.counts = Counts()
    stage = Stage(training=True, module=module)
    module.counts(2**60 + 1 + rank)
    stage.log("counts", module.counts, on_step=True, on_epoch=True, sync_dist=False)
    _, logged = stage.book.end_batches()
    return numbers(logged), numbers(stage.book.callback_metrics)


def test_a_metric_without_sync_is_local_for_loggers_and_global_for_monitors(pool):
    for rank, (logged, monitored) in enumerate(pool.run(metric_alone)):
        assert logged == {"counts_epoch": 1 + rank}
        whole = 2**60 + 3
        assert monitored == {"counts": whole, "counts_epoch": whole, "counts_step": float(2**60)}


def groups(rank):
    alone = [dist.new_group([0]), dist.new_group([1])]
    stage = Stage()
    stage.log("loss", 1.0 + rank, sync_dist_group=alone[rank])
    stage.log("all", 1.0 + rank, sync_dist_group=dist.group.WORLD)
    results, _ = stage.book.end_batches()
    for group in alone:
        if group is not dist.GroupMember.NON_GROUP_MEMBER:
            dist.destroy_process_group(group)
    return numbers(results)


def test_a_group_of_processes_has_its_own_value(pool):
    assert pool.run(groups) == [{"loss": 1.0, "all": 1.5}, {"loss": 2.0, "all": 1.5}]


def new_epoch(rank):
    stage, found = Stage(training=True), []
    for epoch in range(2):
        stage.results.on_epoch = False
        if epoch == 0 or rank == 0:
            stage.log("loss", float(epoch + rank), on_epoch=True, on_step=False)
        stage.book.end_batches()
        if rank == 1:
            stage.log("end", 4.0, hook="on_train_epoch_end")
        with collectives() as calls:
            logged = numbers(stage.book.agree()[1])
        found.append((calls, logged, numbers(stage.book.callback_metrics)))
        stage.results.clear()
    return found


def test_each_epoch_begins_anew_and_its_last_hooks_may_log(pool):
    first, second = pool.run(new_epoch)
    assert first == second
    assert first == [
        (["all_gather"], {"loss": 0.5, "end": 4.0}, {"loss": 0.5, "end": 4.0}),
        (["all_gather"], {"loss": 1.0, "end": 4.0}, {"loss": 1.0, "end": 4.0}),
    ]


def one_process(rank):
    stage = Stage(training=True, world_size=1)
    with collectives() as calls:
        stage.log("loss", 1.0 + rank, on_epoch=True, sync_dist=True)
        stage.book.step_row(0, None)
        stage.book.agree()
        results, _ = stage.book.end_batches()
    return calls, numbers(results)


def test_a_book_of_one_process_enters_nothing(pool):
    assert pool.run(one_process) == [([], {"loss_epoch": 1.0}), ([], {"loss_epoch": 2.0})]
