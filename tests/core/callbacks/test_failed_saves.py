"""A disk that is full does not end a training at once, and costs no file that was written before."""

import resource
import signal

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import CheckpointError, CheckpointWriteError


class Heavy(L.LightningModule):
    """Its files are larger than the disk is at times."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1000, 100)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", 10.0 - self.current_epoch, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Full(L.Callback):
    """No file may grow beyond 100 kB in some of the epochs: what the system says is what it says of a full disk."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_start(self, trainer, pl_module):
        limit = 100_000 if trainer.current_epoch in self.epochs else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@pytest.fixture(autouse=True)
def _room_again():
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, before)


def data():
    return DataLoader(TensorDataset(torch.ones(4, 1000)), 2)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("options", [{}, {"monitor": "loss"}, {"monitor": "loss", "save_last": True}])
def test_training_goes_on_and_the_older_file_stands_until_there_is_room(quiet, tmp_path, options):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", **options)
    trainer = quiet(max_epochs=3, callbacks=[saver, Full({1, 2})], enable_checkpointing=None)
    with pytest.warns(UserWarning, match=r"LY-C012.*could not save the checkpoint.*number [12]") as told:
        trainer.fit(Heavy(), data())
    assert len(told) == 2
    assert trainer.global_step == 6
    last = ["last.ckpt"] if "save_last" in options else []
    assert files(tmp_path) == ["epoch=0.ckpt", *last]
    for path in (saver.best_model_path, saver.last_model_path if last else saver.best_model_path):
        assert torch.load(path, weights_only=True)["epoch"] == 0
    assert list(saver.best_k_models) == ([saver.best_model_path] if options else [])


def test_a_save_that_works_replaces_the_older_file(quiet, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", monitor="loss")
    with pytest.warns(UserWarning, match="LY-C012"):
        quiet(max_epochs=3, callbacks=[saver, Full({1})], enable_checkpointing=None).fit(Heavy(), data())
    assert files(tmp_path) == ["epoch=2.ckpt"]
    assert torch.load(saver.best_model_path, weights_only=True)["epoch"] == 2


def test_several_failures_in_a_row_end_the_run(quiet, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{epoch}")
    trainer = quiet(max_epochs=9, callbacks=[saver, Full({1, 2, 3})], enable_checkpointing=None, max_failed_saves=2)
    with pytest.warns(UserWarning, match="LY-C012"), pytest.raises(CheckpointWriteError, match="could not save"):
        trainer.fit(Heavy(), data())
    assert trainer.current_epoch == 2
    assert files(tmp_path) == ["epoch=0.ckpt"]


def test_what_can_not_be_saved_at_all_ends_the_run_at_once(quiet, tmp_path):
    class Odd(Heavy):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["odd"] = object()

    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    with pytest.raises(CheckpointError, match="only code could rebuild"):
        quiet(max_epochs=3, callbacks=[saver], enable_checkpointing=None).fit(Odd(), data())


def test_wrong_numbers_are_refused(quiet):
    with pytest.raises(ValueError, match="at least 1"):
        quiet(max_failed_saves=0)
    with pytest.raises(TypeError, match="must be an int"):
        quiet(max_failed_saves=True)
