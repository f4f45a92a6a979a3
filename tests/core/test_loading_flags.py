"""Flags about data and about how much is done: overfit_batches, reloading, barebones."""

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

import leyden.core as L
from leyden.core.errors import MisconfigurationException


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.validated, self.loads = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.tolist())
        self.log("a", 1.0)
        return self.w.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Loading(Model):
    def train_dataloader(self):
        self.loads.append(("train", self.current_epoch))
        return DataLoader(torch.arange(4.0), 2)

    def val_dataloader(self):
        self.loads.append(("val", self.current_epoch))
        return DataLoader(torch.arange(4.0), 2)


def trainer(tmp_path, **flags):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(default_root_dir=tmp_path, **{**quiet, "max_epochs": 2, "num_sanity_val_steps": 0, **flags})


def test_overfitting_sees_the_same_batches_in_order(tmp_path):
    loader = DataLoader(torch.arange(8.0), 2, shuffle=True)
    model = Model()
    with pytest.warns(UserWarning, match="turning off the train dataloader shuffling"):
        trainer(tmp_path, overfit_batches=2).fit(model, loader, DataLoader(torch.arange(8.0) + 10, 2))
    assert model.seen == [[0.0, 1.0], [2.0, 3.0]] * 2
    assert model.validated == [[10.0, 11.0], [12.0, 13.0]] * 2
    assert isinstance(loader.sampler, RandomSampler)


def test_a_fraction_overfits_too(tmp_path):
    model = Model()
    trainer(tmp_path, overfit_batches=0.5, max_epochs=1).fit(
        model, DataLoader(torch.arange(8.0), 2), [torch.ones(1)] * 4
    )
    assert len(model.seen) == len(model.validated) == 2


@pytest.mark.parametrize(("every", "epochs"), [(0, [0]), (1, [0, 1, 2, 3]), (2, [0, 2])])
def test_loaders_are_asked_for_again(tmp_path, every, epochs):
    model = Loading()
    trainer(tmp_path, reload_dataloaders_every_n_epochs=every, max_epochs=4).fit(model)
    assert model.loads == [(kind, epoch) for epoch in epochs for kind in ("train", "val")]
    assert len(model.seen) == 8


def test_barebones_does_the_least(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    t = L.Trainer(barebones=True, max_epochs=1)
    model = Model()
    t.fit(model, [torch.ones(1)] * 3, [torch.ones(1)])
    assert (t.global_step, t.loggers, t.callbacks, t.callback_metrics) == (3, [], [], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [{"logger": True}, {"enable_checkpointing": True}, {"fast_dev_run": True}])
def test_barebones_and_more_is_refused(flags):
    with pytest.raises(MisconfigurationException, match="barebones=True"):
        L.Trainer(barebones=True, max_epochs=1, **flags)


@pytest.mark.parametrize("flags", [{"overfit_batches": -1}, {"reload_dataloaders_every_n_epochs": -1}])
def test_wrong_values(flags):
    with pytest.raises(MisconfigurationException, match=next(iter(flags))):
        L.Trainer(max_epochs=1, **flags)


def test_hyper_parameters_are_logged_unless_switched_off(tmp_path):
    class Noting(L.loggers.DummyLogger):
        noted = []

        def log_hyperparams(self, *args, **kwargs):
            self.noted.append(args)

    class Own(Model):
        def __init__(self, width=3):
            super().__init__()
            self.save_hyperparameters()

    for on in (True, False):
        t = trainer(tmp_path, logger=Noting(), enable_autolog_hparams=on, max_epochs=1)
        t.fit(Own(), [torch.ones(1)], [torch.ones(1)])
    assert Noting.noted == [({"width": 3},)]


def test_max_time_ends_the_training(tmp_path):
    t = trainer(tmp_path, max_time={"seconds": 0}, max_epochs=-1)
    t.fit(Model(), [torch.ones(1)] * 4, [torch.ones(1)])
    assert t.global_step == 0
    with pytest.raises(MisconfigurationException, match="DD:HH:MM:SS"):
        trainer(tmp_path, max_time="ten minutes")
