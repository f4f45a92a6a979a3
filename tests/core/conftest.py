"""What the tests of core share: a trainer that says and leaves nothing, and a module to hang behaviour on."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import WARNED


@pytest.fixture(autouse=True)
def _warnings_start_afresh():
    """A warning is shown once a run; outside of runs, once a test."""
    WARNED.clear()
    yield
    WARNED.clear()


@pytest.fixture
def quiet(tmp_path):
    """Make a trainer without bar, summary, logger and checkpoints, unless it is told otherwise."""

    def make(**flags):
        silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        return L.Trainer(**{"default_root_dir": tmp_path, "logger": False, "max_epochs": 1, **silent, **flags})

    return make


class Tiny(L.LightningModule):
    """One weight, trained to zero: batch i of the loader holds the numbers of its samples."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch[0].mean()).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.fixture
def tiny():
    """The class of a small module."""
    return Tiny


@pytest.fixture
def numbers():
    """Make a loader over the numbers 0 to n - 1."""

    def make(n=8, batch_size=2, **options):
        return DataLoader(TensorDataset(torch.arange(n, dtype=torch.float32)), batch_size=batch_size, **options)

    return make


@pytest.fixture
def saved(quiet, numbers, tmp_path):
    """Save a module, as it is, by a trainer; returns the file."""

    def save(model, **fit):
        trainer = quiet(max_epochs=0)
        trainer.fit(model, **(fit or {"train_dataloaders": numbers()}))
        path = tmp_path / "saved.ckpt"
        trainer.save_checkpoint(path)
        return path

    return save
