"""self.log: where, when, under which name, and what number."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import WARNED, MisconfigurationException


class Rows(L.loggers.Logger):
    """A logger that keeps its rows in memory."""

    def __init__(self):
        self.rows = []

    name = "rows"
    version = 0

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, {k: pytest.approx(v) for k, v in metrics.items()}))

    def log_hyperparams(self, params, metrics=None):
        self.params = params


class Model(L.LightningModule):
    """Runs code given to it in its hooks, on data whose values are known: batch i holds the numbers of its samples."""

    def __init__(self, **hooks):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.hooks = hooks

    def training_step(self, batch, batch_idx):
        if "training_step" in self.hooks:
            self.hooks["training_step"](self, batch[0], batch_idx)
        return (self.w * batch[0].mean()).sum()

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.hooks["test_step"](self, batch[0], batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Validated(Model):
    def validation_step(self, batch, batch_idx):
        self.hooks["validation_step"](self, batch[0], batch_idx)


def data(n=10, batch_size=4):
    return DataLoader(TensorDataset(torch.arange(n, dtype=torch.float32)), batch_size=batch_size)


def trainer(tmp_path, logger=False, **flags):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"max_epochs": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **quiet, **flags}
    return L.Trainer(default_root_dir=tmp_path, logger=logger, **settings)


def test_the_defaults_of_a_training_step_and_of_evaluation(tmp_path):
    rows = Rows()
    model = Validated(
        training_step=lambda m, x, i: m.log("a", x.mean()), validation_step=lambda m, x, i: m.log("b", x.mean())
    )
    t = trainer(tmp_path, rows)
    t.fit(model, data(), data())
    assert rows.rows == [
        (0, {"a": 1.5, "epoch": 0}),
        (1, {"a": 5.5, "epoch": 0}),
        (2, {"a": 8.5, "epoch": 0}),
        (2, {"b": 4.5, "epoch": 0}),
    ]
    assert set(t.callback_metrics) == {"a", "b"}


def test_with_both_flags_names_fork_and_the_epoch_value_is_the_mean_weighted_by_batch_size(tmp_path):
    rows = Rows()
    model = Model(training_step=lambda m, x, i: m.log("a", x.mean(), on_step=True, on_epoch=True, prog_bar=True))
    t = trainer(tmp_path, rows)
    t.fit(model, data())
    assert rows.rows[0] == (0, {"a_step": 1.5, "epoch": 0})
    assert rows.rows[-1] == (2, {"a_epoch": 4.5, "epoch": 0})
    assert {k: float(v) for k, v in t.callback_metrics.items()} == {"a": 4.5, "a_step": 8.5, "a_epoch": 4.5}
    assert t.progress_bar_metrics == {"a_step": 8.5, "a_epoch": 4.5}
    assert {k: float(v) for k, v in t.logged_metrics.items()} == {"a_step": 8.5, "a_epoch": 4.5}


@pytest.mark.parametrize(
    ("reduce", "value"), [("mean", 4.5), ("sum", 15.5), ("min", 1.5), ("max", 8.5), (torch.max, 8.5)]
)
def test_reductions(tmp_path, reduce, value):
    model = Model(training_step=lambda m, x, i: m.log("a", x.mean(), on_step=False, on_epoch=True, reduce_fx=reduce))
    t = trainer(tmp_path)
    t.fit(model, data())
    assert float(t.callback_metrics["a"]) == value


def test_a_batch_size_that_is_given_is_the_weight(tmp_path):
    model = Model(
        training_step=lambda m, x, i: m.log("a", x.mean(), on_step=False, on_epoch=True, batch_size=[1, 0, 3][i])
    )
    t = trainer(tmp_path)
    t.fit(model, data())
    assert float(t.callback_metrics["a"]) == (1.5 + 3 * 8.5) / 4


def test_thousands_of_values_fold_to_the_exact_mean(tmp_path):
    model = Model(training_step=lambda m, x, i: m.log("a", x.mean(), on_step=False, on_epoch=True))
    t = trainer(tmp_path)
    t.fit(model, data(1000, 3))
    assert float(t.callback_metrics["a"]) == 499.5


def test_mixed_numbers_and_tensors(tmp_path):
    model = Model(training_step=lambda m, x, i: m.log("a", x.mean() if i else 10, on_step=False, on_epoch=True))
    t = trainer(tmp_path)
    t.fit(model, data())
    assert float(t.callback_metrics["a"]) == pytest.approx((40 + 22 + 17) / 10)


def test_later_changes_of_a_logged_tensor_do_not_show(tmp_path):
    def step(module, x, i):
        value = torch.tensor([1.0, 2.0])
        module.log("a", value[0], on_step=True, on_epoch=True)
        value += 100

    t = trainer(tmp_path)
    t.fit(Model(training_step=step), data())
    assert {float(v) for v in t.callback_metrics.values()} == {1.0}


def test_several_loaders_number_their_names_and_dicts_name_them(tmp_path):
    model = Model(test_step=lambda m, x, i: m.log("a", x.mean()))
    t = trainer(tmp_path)
    rows = t.test(model, [data(4), data(8)], verbose=False)
    assert rows == [{"a/dataloader_idx_0": 1.5}, {"a/dataloader_idx_1": 3.5}]
    plain = Model(test_step=lambda m, x, i: m.log(f"a{len(x)}", x.mean(), add_dataloader_idx=False))
    assert t.test(plain, [data(4), data(3)], verbose=False) == [{"a4": 1.5}, {"a3": 1.0}]


def test_a_value_called_step_becomes_the_x_axis(tmp_path):
    rows = Rows()

    def step(module, x, i):
        module.log("step", float(100 + i))
        module.log("a", x.mean())

    trainer(tmp_path, rows).fit(Model(training_step=step), data())
    assert rows.rows[0] == (100, {"a": 1.5})


def test_log_every_n_steps_counts_batches_that_stepped(tmp_path):
    rows = Rows()
    model = Model(training_step=lambda m, x, i: m.log("a", float(i)))
    trainer(tmp_path, rows, log_every_n_steps=2, max_epochs=2).fit(model, data())
    assert [step for step, _ in rows.rows] == [1, 3, 5]


@pytest.mark.parametrize(
    ("hook", "flags", "message"),
    [
        ("on_fit_start", {}, r"You can't `self.log\(\)` inside `on_fit_start`"),
        ("on_train_end", {}, "on_train_end"),
        ("configure_optimizers", {}, r"You can't `self.log\(\)` inside `configure_optimizers`"),
        (
            "on_train_epoch_start",
            {"on_step": True},
            r"You can't `self.log\(on_step=True\)` inside `on_train_epoch_start`",
        ),
        ("on_train_epoch_end", {"on_epoch": False}, r"You can't `self.log\(on_epoch=False\)`"),
        ("on_train_batch_end", {"on_step": False, "on_epoch": False}, "is not useful"),
        ("on_train_batch_end", {"reduce_fx": "median"}, r"reduce_fx=\{min,max,mean,sum\}"),
    ],
)
def test_where_logging_is_refused(tmp_path, hook, flags, message):
    class Logging(Model):
        pass

    def method(self, *args, **kwargs):
        self.log("a", 1.0, **flags)
        return getattr(super(Logging, self), hook)(*args, **kwargs)

    setattr(Logging, hook, method)
    with pytest.raises(MisconfigurationException, match=message):
        trainer(tmp_path).fit(Logging(), data())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "`str` values cannot be logged"),
        (None, "`NoneType` values cannot be logged"),
        (np.array(2.0), "`ndarray` values cannot be logged"),
        ({"b": 1}, "nested dictionaries cannot be logged"),
        (torch.ones(3), "the tensor must have a single element"),
    ],
)
def test_values_that_are_no_single_number(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(Model(training_step=lambda m, x, i: m.log("a", value)), data())


def test_the_same_name_twice_with_other_flags(tmp_path):
    def step(module, x, i):
        module.log("a", 1.0)
        module.log("a", 1.0, prog_bar=True)

    with pytest.raises(MisconfigurationException, match="twice in `training_step` with different arguments"):
        trainer(tmp_path).fit(Model(training_step=step), data())


def test_predict_does_not_log(tmp_path):
    class Predicting(Model):
        def predict_step(self, batch):
            self.log("a", 1.0)

    with pytest.raises(MisconfigurationException, match="predict"):
        trainer(tmp_path).predict(Predicting(), data())


def test_without_a_trainer_logging_warns():
    WARNED.clear()
    with pytest.warns(UserWarning, match="`self.trainer` reference is not registered"):
        Model().log("a", 1.0)


def test_callbacks_log_too(tmp_path):
    class Logs(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            self.log("from_callback", 3.0)

    t = trainer(tmp_path, callbacks=[Logs()])
    t.fit(Model(), data())
    assert float(t.callback_metrics["from_callback"]) == 3.0


class Count(torch.nn.Module):
    """A metric that counts samples."""

    def __init__(self):
        super().__init__()
        self.n, self.resets, self.batch_value = 0, 0, None

    def update(self, x):
        self.n += len(x)

    def forward(self, x):
        self.update(x)
        self.batch_value = torch.tensor(float(len(x)))
        return self.batch_value

    def compute(self):
        return torch.tensor(float(self.n))

    def reset(self):
        self.n, self.resets = 0, self.resets + 1


def test_metric_objects_log_their_batch_value_at_steps_and_their_whole_over_the_epoch(tmp_path):
    def step(module, x, i):
        module.count(x)
        module.log("n", module.count, on_step=True, on_epoch=True)

    model = Model(training_step=step)
    model.count = Count()
    rows = Rows()
    t = trainer(tmp_path, rows, max_epochs=2)
    t.fit(model, data())
    assert [values for _, values in rows.rows[:4]] == [
        {"n_step": 4, "epoch": 0},
        {"n_step": 4, "epoch": 0},
        {"n_step": 2, "epoch": 0},
        {"n_epoch": 10, "epoch": 0},
    ]
    assert float(t.callback_metrics["n"]) == 10
    assert model.count.resets == 2


def test_a_metric_that_is_no_attribute_is_refused(tmp_path):
    metric = Count()

    def step(module, x, i):
        metric(x)
        module.log("n", metric)

    with pytest.raises(MisconfigurationException, match="Could not find the `LightningModule` attribute"):
        trainer(tmp_path).fit(Model(training_step=step), data())


def test_the_batch_size_is_found_in_nested_batches_and_a_doubtful_one_is_said(tmp_path):
    batches = [{"x": [torch.zeros(3, 2), torch.zeros(5)]}] * 2

    class Nested(Model):
        def training_step(self, batch, batch_idx):
            self.log("a", float(batch_idx), on_step=False, on_epoch=True)
            return self.w.sum()

    t = trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"ambiguous collection. The batch size we found is 3 \(batch\['x'\]\[0\]\)"):
        t.fit(Nested(), batches)
    with pytest.raises(MisconfigurationException, match="could not infer the batch_size"):
        trainer(tmp_path).fit(Nested(), [{}])


class Pair(torch.nn.Module):
    """Two values under names of their own."""

    def __init__(self, prefix):
        super().__init__()
        self.prefix, self.n = prefix, 0

    def update(self, x):
        self.n += len(x)

    def compute(self):
        return {f"{self.prefix}n": torch.tensor(float(self.n)), f"{self.prefix}double": torch.tensor(2.0 * self.n)}

    def reset(self):
        self.n = 0


def test_groups_of_metrics_name_their_values_and_several_stand_side_by_side(tmp_path):
    def step(module, x, i):
        for group in (module.first, module.second):
            group.update(x)
            module.log_dict(group)

    model = Model(test_step=step)
    model.first, model.second = Pair("a/"), Pair("b/")
    rows = trainer(tmp_path).test(model, data(), verbose=False)
    assert rows == [{"a/n": 10.0, "a/double": 20.0, "b/n": 10.0, "b/double": 20.0}]
    assert model.first.n == 0


class Collection(torch.nn.ModuleDict):
    """Metrics under names of their own, without a value of the last batch for all of them together."""

    def __init__(self, metrics):
        super().__init__()
        for name, metric in metrics.items():
            self[name] = metric

    def update(self, x):
        for metric in self.values():
            metric.update(x)

    def forward(self, x):
        return {name: metric(x) for name, metric in self.items()}

    def compute(self):
        return {name: metric.compute() for name, metric in self.items()}

    def reset(self):
        for metric in self.values():
            metric.reset()


def test_a_collection_of_metrics_has_step_values_too(tmp_path):
    def step(module, x, i):
        module.metrics(x)
        module.log_dict(module.metrics, on_step=True, on_epoch=True)

    model = Model(training_step=step)
    model.metrics = Collection({"n": Count(), "m": Count()})
    rows = Rows()
    trainer(tmp_path, rows).fit(model, data())
    assert rows.rows == [
        (0, {"n_step": 4, "m_step": 4, "epoch": 0}),
        (1, {"n_step": 4, "m_step": 4, "epoch": 0}),
        (2, {"n_step": 2, "m_step": 2, "epoch": 0}),
        (2, {"n_epoch": 10, "m_epoch": 10, "epoch": 0}),
    ]


@pytest.mark.parametrize("name", ["log", "log_dict"])
def test_a_collection_under_one_name_is_refused(tmp_path, name):
    def step(module, x, i):
        if name == "log":
            module.log("all", module.metrics)
        else:
            module.log_dict({"all": module.metrics})

    model = Model(training_step=step)
    model.metrics = Collection({"n": Count()})
    with pytest.raises(ValueError, match=r"`Collection` values cannot be logged.*use `self.log_dict`"):
        trainer(tmp_path).fit(model, data())


def test_step_values_of_a_metric_that_was_only_updated(tmp_path):
    def step(module, x, i):
        module.metrics.update(x)
        module.log_dict(module.metrics, on_step=True)

    model = Model(training_step=step)
    model.metrics = Collection({"n": Count()})
    with pytest.raises(MisconfigurationException, match=r"`self.log_dict\(metrics, on_step=True\)`.*call `metric\("):
        trainer(tmp_path, Rows()).fit(model, data())


def test_a_logger_that_changes_log_metrics_gets_its_rows_there(tmp_path, monkeypatch):
    class Shouting(L.loggers.CSVLogger):
        def log_metrics(self, metrics, step=None):
            super().log_metrics({name.upper(): value for name, value in metrics.items()}, step)

    model = Model(training_step=lambda m, x, i: m.log("a", x.mean()))
    logger = Shouting(tmp_path, name="own")
    trainer(tmp_path, logger).fit(model, data())
    assert "A" in (tmp_path / "own" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")

    calls = []
    monkeypatch.setattr(L.loggers.CSVLogger, "log_metrics", lambda self, metrics, step: calls.append((step, metrics)))
    trainer(tmp_path, L.loggers.CSVLogger(tmp_path, name="mocked")).fit(model, data(4))
    assert calls == [(0, {"a": 1.5, "epoch": 0.0})]


def test_a_row_that_only_says_its_step_is_none(tmp_path):
    rows = Rows()
    trainer(tmp_path, rows).fit(Model(training_step=lambda m, x, i: m.log("step", 7.0)), data())
    assert rows.rows == []


def test_half_precision_is_widened(tmp_path):
    model = Model(training_step=lambda m, x, i: m.log("a", x.mean().half(), on_epoch=True))
    t = trainer(tmp_path)
    t.fit(model, data())
    assert {value.dtype for value in t.callback_metrics.values()} == {torch.float32}


def test_texts_have_no_batch_size(tmp_path):
    class Texts(Model):
        def training_step(self, batch, batch_idx):
            self.log("a", float(batch_idx), on_step=False, on_epoch=True)
            return self.w.sum()

    t = trainer(tmp_path)
    t.fit(Texts(), DataLoader([("one", torch.ones(2)), ("two", torch.ones(2)), ("three", torch.ones(2))], batch_size=2))
    assert float(t.callback_metrics["a"]) == pytest.approx(1 / 3)
