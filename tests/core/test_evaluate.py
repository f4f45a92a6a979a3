"""validate, test and predict."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException, PossibleUserWarning


def data(n=10, batch_size=4):
    return DataLoader(TensorDataset(torch.arange(n, dtype=torch.float32)), batch_size=batch_size)


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(1))
        self.modes = []

    def training_step(self, batch):
        return self.body(batch[0][:, None]).sum()

    def validation_step(self, batch, batch_idx):
        self.modes.append((self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        self.log("mean", batch[0].mean())

    def test_step(self, batch):
        self.log("mean", batch[0].mean())

    def predict_step(self, batch, batch_idx):
        return batch[0] * 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(tmp_path, **flags):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(default_root_dir=tmp_path, max_epochs=1, **{**quiet, **flags})


def test_results_are_one_dict_of_numbers_per_loader_and_are_printed(tmp_path, capsys):
    t = trainer(tmp_path)
    assert t.validate(Model(), data()) == [{"mean": 4.5}]
    assert "mean" in capsys.readouterr().out
    assert t.test(Model(), data(), verbose=False) == [{"mean": 4.5}]
    assert capsys.readouterr().out == ""
    assert t.state.finished


@pytest.mark.parametrize("inference_mode", [True, False])
def test_modes(tmp_path, inference_mode):
    model = Model()
    model.body[2].eval()
    t = trainer(tmp_path, inference_mode=inference_mode)
    t.validate(model, data(), verbose=False)
    assert set(model.modes) == {(False, False, inference_mode)}
    assert (model.training, model.body[1].training, model.body[2].training) == (True, True, False)
    model.modes.clear()
    with pytest.warns(PossibleUserWarning, match=r"Found 1 module\(s\) in eval mode"):
        t.fit(model, data(8), data())
    assert set(model.modes) == {(False, False, False)}
    assert torch.is_grad_enabled()


def test_predictions_come_batch_by_batch_and_per_loader(tmp_path):
    t = trainer(tmp_path)
    out = t.predict(Model(), data())
    assert torch.equal(torch.cat(out), torch.arange(10.0) * 2)
    assert [len(part) for part in out] == [4, 4, 2]
    assert t.predict(Model(), data(), return_predictions=False) is None


def test_predict_calls_the_module_by_default(tmp_path):
    class Plain(L.LightningModule):
        def forward(self, batch):
            return batch[0] + 1

    assert torch.equal(torch.cat(trainer(tmp_path).predict(Plain(), data())), torch.arange(10.0) + 1)


def test_limits(tmp_path):
    assert trainer(tmp_path, limit_val_batches=1).validate(Model(), data(), verbose=False) == [{"mean": 1.5}]
    assert trainer(tmp_path, limit_test_batches=0.67).test(Model(), data(), verbose=False) == [{"mean": 3.5}]
    with pytest.raises(MisconfigurationException, match=r"Try at least `limit_val_batches=0\.33"):
        trainer(tmp_path, limit_val_batches=0.1).validate(Model(), data(), verbose=False)


class Rows(L.loggers.Logger):
    """A logger that keeps its rows in memory."""

    name, version = "rows", 0

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, metrics=None):
        pass


class Several(Model):
    """Logs for each of several loaders, under its index and not, and once for all."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("mean", batch[0].mean(), prog_bar=True)
        self.log("most", batch[0].max(), on_step=True, on_epoch=True, reduce_fx="max")
        self.log(f"own{dataloader_idx}", 1.0, add_dataloader_idx=False)

    test_step = validation_step

    def on_test_epoch_end(self):
        self.log("all", 7.0)


def test_loggers_and_bar_see_the_names_of_loaders_and_monitors_see_both(tmp_path):
    logger = Rows()
    t = trainer(tmp_path, logger=logger)
    results = t.test(Several(), {"small": data(4), "large": data(8)}, verbose=False)
    assert results == [
        {"mean/dataloader_idx_0": 1.5, "most_epoch/dataloader_idx_0": 3.0, "own0": 1.0, "all": 7.0},
        {"mean/dataloader_idx_1": 3.5, "most_epoch/dataloader_idx_1": 7.0, "own1": 1.0, "all": 7.0},
    ]
    assert logger.rows == [
        (0, {"most_step/small": 3.0}),
        (0, {"most_step/large": 3.0}),
        (1, {"most_step/large": 7.0}),
        (
            0,
            {
                "mean/small": 1.5,
                "most_epoch/small": 3.0,
                "own0": 1.0,
                "mean/large": 3.5,
                "most_epoch/large": 7.0,
                "own1": 1.0,
                "all": 7.0,
                "epoch": 0.0,
            },
        ),
    ]
    assert t.progress_bar_metrics == {"mean/small": 1.5, "mean/large": 3.5}
    assert {name: float(value) for name, value in t.callback_metrics.items() if name.startswith("mean")} == {
        "mean/small": 1.5,
        "mean/dataloader_idx_0": 1.5,
        "mean/large": 3.5,
        "mean/dataloader_idx_1": 3.5,
    }
    assert {"most/small", "most_epoch/small", "most/dataloader_idx_0", "most_epoch/dataloader_idx_0"} <= set(
        t.callback_metrics
    )


def test_either_name_can_be_monitored(tmp_path):
    savers = [
        L.callbacks.ModelCheckpoint(dirpath=tmp_path / part, monitor=name, mode="max")
        for part, name in (("a", "mean/large"), ("b", "mean/dataloader_idx_1"))
    ]
    t = trainer(tmp_path, enable_checkpointing=True, callbacks=savers, num_sanity_val_steps=0)
    t.fit(Several(), data(8), {"small": data(4), "large": data(8)})
    assert [float(saver.best_model_score) for saver in savers] == [3.5, 3.5]


def test_a_list_of_loaders_is_numbered_everywhere(tmp_path):
    logger = Rows()
    t = trainer(tmp_path, logger=logger)
    t.validate(Several(), [data(4), data(8)], verbose=False)
    assert logger.rows[0] == (0, {"most_step/dataloader_idx_0": 3.0})
    assert {"mean/dataloader_idx_0", "mean/dataloader_idx_1"} <= logger.rows[-1][1].keys()
    assert set(t.progress_bar_metrics) == {"mean/dataloader_idx_0", "mean/dataloader_idx_1"}


def test_loaders_that_share_a_name_are_numbered_and_a_single_one_needs_no_name(tmp_path):
    t = trainer(tmp_path)
    t.validate(Several(), {"a": data(4), "b": [data(4), data(8)]}, verbose=False)
    assert set(t.progress_bar_metrics) == {"mean/a", "mean/dataloader_idx_1", "mean/dataloader_idx_2"}
    t.validate(Several(), {"a": data(4)}, verbose=False)
    assert set(t.progress_bar_metrics) == {"mean"}


def test_what_loggers_do_not_get_is_no_result(tmp_path):
    class Secret(Model):
        def validation_step(self, batch, batch_idx):
            self.log("shown", 1.0, on_step=True, on_epoch=True)
            self.log("kept", 2.0, logger=False)

    t = trainer(tmp_path)
    assert t.validate(Secret(), data(), verbose=False) == [{"shown_epoch": 1.0}]
    assert set(t.callback_metrics) == {"shown", "shown_epoch", "kept"}


def test_the_sanity_check_writes_no_rows(tmp_path):
    logger = Rows()
    trainer(tmp_path, logger=logger, num_sanity_val_steps=1).fit(Several(), data(8), data(8))
    assert [step for step, row in logger.rows if "most_step" in row] == [0, 1]


@pytest.mark.parametrize("hook", ["test_step", "on_test_batch_start", "on_test_batch_end"])
def test_several_loaders_need_the_argument(tmp_path, hook):
    class Numberless(Model):
        def test_step(self, batch, batch_idx, dataloader_idx):
            pass

    def method(self, *, batch=None, batch_idx=None):
        pass

    setattr(Numberless, hook, method)
    message = rf"You provided multiple `test_dataloader`, but no `dataloader_idx` argument in `Numberless\.{hook}\(\)`"
    with pytest.raises(RuntimeError, match=message):
        trainer(tmp_path).test(Numberless(), [data(), data()])


@pytest.mark.parametrize("hook", ["validation_step", "on_validation_batch_start", "on_validation_batch_end"])
def test_a_single_loader_has_no_number(tmp_path, hook):
    class Numbered(Model):
        pass

    def step(self, batch, batch_idx, dataloader_idx):
        pass

    def end(self, outputs, batch, batch_idx, dataloader_idx):
        pass

    setattr(Numbered, hook, end if hook.endswith("end") else step)
    with pytest.raises(MisconfigurationException, match=rf"only a single `val_dataloader`.*`Numbered\.{hook}\(\)`"):
        trainer(tmp_path).validate(Numbered(), data())


def test_a_step_may_name_its_arguments_as_it_likes(tmp_path):
    class Named(Model):
        def test_step(self, x, i, which):
            self.log("which", float(which))

    assert trainer(tmp_path).test(Named(), [data(4), data(4)], verbose=False) == [
        {"which/dataloader_idx_0": 0.0},
        {"which/dataloader_idx_1": 1.0},
    ]


def test_the_model_of_the_last_call_is_evaluated_with_its_best_weights(tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    t = trainer(tmp_path, enable_checkpointing=True, callbacks=[saver])
    model = Model()
    t.fit(model, data(8), data())
    trained = model.body[0].weight.clone()
    with torch.no_grad():
        model.body[0].weight.zero_()
    with pytest.warns(UserWarning, match=r"was called without a model. The best model of the previous `fit`"):
        t.test(dataloaders=data(), verbose=False)
    assert torch.equal(model.body[0].weight, trained)
    assert t.ckpt_path == saver.best_model_path


def test_without_any_model(tmp_path):
    with pytest.raises(TypeError, match="requires a `LightningModule` when it hasn't been passed in a previous run"):
        trainer(tmp_path).validate(dataloaders=data())


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_what_is_missing_is_named(tmp_path, verb):
    class Bare(L.LightningModule):
        pass

    with pytest.raises(MisconfigurationException, match=rf"No `\w+_step\(\)` method defined to run `Trainer.{verb}`"):
        getattr(trainer(tmp_path), verb)(Bare(), data())
    with pytest.raises(
        MisconfigurationException,
        match=r"An invalid dataloader was passed to `Trainer.\w+\(dataloaders=...\)`. Found None",
    ):
        getattr(trainer(tmp_path), verb)(Model())


def test_an_empty_loader_is_named(tmp_path):
    with pytest.raises(MisconfigurationException, match="yields no batch"):
        trainer(tmp_path).validate(Model(), data(0), verbose=False)


def test_a_metric_made_in_validate_is_usable_in_training_after_it(tmp_path):
    class Total(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reset()

        def update(self, x):
            self.total += x.sum()

        def compute(self):
            return self.total

        def reset(self):
            self.total = torch.zeros(())

    class WithMetric(Model):
        def __init__(self):
            super().__init__()
            self.total = Total()

        def validation_step(self, batch, batch_idx):
            self.total.update(batch[0])
            self.log("total", self.total)

        def training_step(self, batch):
            self.total.update(batch[0])
            return super().training_step(batch)

    model = WithMetric()
    t = trainer(tmp_path, num_sanity_val_steps=0)
    assert t.validate(model, data(), verbose=False) == [{"total": 45.0}]
    t.fit(model, data(8), data())


def test_predictions_stream_one_by_one_and_leave_the_callers_gradients_alone(tmp_path):
    made = []

    class Noting(Model):
        def predict_step(self, batch, batch_idx):
            made.append(batch_idx)
            assert not torch.is_grad_enabled()
            return super().predict_step(batch, batch_idx)

    t = trainer(tmp_path)
    model = Noting()
    seen = []
    for out in t.predict_iter(model, data()):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        seen.append(out.tolist())
        assert made == list(range(len(seen)))
    assert seen == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert model.training
    assert t.state.finished


def test_a_stream_that_is_left_early_is_torn_down(tmp_path):
    ended = []

    class Noting(Model):
        def teardown(self, stage):
            ended.append(stage)

    stream = trainer(tmp_path).predict_iter(Noting(), data())
    next(stream)
    stream.close()
    assert ended == ["predict"]
