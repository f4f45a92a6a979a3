"""Processes that a test, a notebook or a prompt starts bring their results back."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException


class Counting(L.Callback):
    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("seen", float(len(batch[0])), reduce_fx="sum")

    def predict_step(self, batch, batch_idx):
        return batch[0] * 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Failing(Line):
    def training_step(self, batch, batch_idx):
        if self.trainer.global_rank == 1:
            raise ValueError("the second process can not go on")
        return super().training_step(batch, batch_idx)


def numbers(n=12):
    return DataLoader(TensorDataset(torch.arange(n, dtype=torch.float32).unsqueeze(1)), batch_size=2)


def test_fit_test_and_predict_bring_everything_back(quiet, tmp_path):
    counting, module = Counting(), Line()
    before = module.layer.weight.clone()
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    trainer = quiet(accelerator="cpu", devices=2, callbacks=[counting, saver], enable_checkpointing=None)
    trainer.fit(module, numbers())
    assert not torch.equal(module.layer.weight, before)
    assert trainer.global_step == 3
    assert counting.batches == 3
    assert "loss_epoch" in trainer.callback_metrics
    saved = torch.load(saver.best_model_path, weights_only=True)["state_dict"]["layer.weight"]
    assert torch.equal(saved, module.layer.weight)

    # an odd number of samples, of which none is counted twice
    assert trainer.test(module, numbers(13), verbose=False) == [{"seen": 13.0}]


def test_what_one_of_them_raises_is_raised_here(quiet):
    with pytest.raises(ValueError, match="the second process can not go on"):
        quiet(accelerator="cpu", devices=2).fit(Failing(), numbers())


def test_outputs_can_not_stream_out_of_processes_that_end(quiet):
    with pytest.raises(MisconfigurationException, match="predict_iter"):
        next(quiet(accelerator="cpu", devices=2).predict_iter(Line(), numbers()))
