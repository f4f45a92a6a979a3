"""A callback that steers by the value of a step does so alike on every process."""

import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L


class Stops(L.Callback):
    """Stops at a mean of the processes that no process has by itself."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        own = float(trainer.callback_metrics["value"])
        self.seen.append((own, float(trainer.agree_on_metrics()["value"])))
        trainer.should_stop = self.seen[-1][1] == 4.5


class Counts(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        self.log("value", batch[0].sum())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_callback_asks_for_the_value_of_all_processes(quiet):
    stops = Stops()
    trainer = quiet(accelerator="cpu", devices=2, callbacks=[stops])
    trainer.fit(Counts(), DataLoader(TensorDataset(torch.arange(12.0))))
    assert stops.seen == [(0.0, 0.5), (2.0, 2.5), (4.0, 4.5)]
    assert trainer.global_step == 3


def test_with_one_process_it_is_what_was_logged(quiet):
    stops = Stops()
    quiet(accelerator="cpu", devices=1, callbacks=[stops]).fit(Counts(), DataLoader(TensorDataset(torch.arange(3.0))))
    assert stops.seen == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
    assert L.Trainer(logger=False, enable_checkpointing=False, max_epochs=1).agree_on_metrics() == {}
