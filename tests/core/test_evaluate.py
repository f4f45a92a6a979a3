"""validate, test and predict."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException


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


def test_named_loaders(tmp_path):
    class Several(Model):
        def test_step(self, batch, batch_idx, dataloader_idx):
            self.log("mean", batch[0].mean())

    rows = trainer(tmp_path).test(Several(), {"small": data(4), "large": data(8)}, verbose=False)
    assert rows == [{"mean/dataloader_idx_0": 1.5}, {"mean/dataloader_idx_1": 3.5}]


def test_several_loaders_need_the_argument(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"no `dataloader_idx` argument in `Model\.test_step"):
        trainer(tmp_path).test(Model(), [data(), data()])


def test_the_model_of_the_last_call_is_evaluated_with_its_best_weights(tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    t = trainer(tmp_path, enable_checkpointing=True, callbacks=[saver])
    model = Model()
    t.fit(model, data(8), data())
    trained = model.body[0].weight.clone()
    with torch.no_grad():
        model.body[0].weight.zero_()
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
    with pytest.raises(MisconfigurationException, match=r"No `\w+_dataloader\(\)` method defined"):
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
