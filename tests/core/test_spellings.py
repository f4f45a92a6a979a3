"""Flags from the environment, and the spellings of the 1.0 API."""

import warnings

import pytest
import torch

import leyden.core as L
from leyden.core.errors import (
    WARNED,
    LightningDeprecationWarning,
    MisconfigurationException,
    MisconfigurationTypeError,
)


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch):
        return (self.w * batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def old(**flags):
    WARNED.clear()
    with pytest.warns(LightningDeprecationWarning, match="spelling of the 1.0 API"):
        return L.Trainer(max_epochs=1, logger=False, **flags)


def test_the_environment_stands_in_for_flags_that_are_not_given(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "7")
    monkeypatch.setenv("LEYDEN_TRAINER_LIMIT_VAL_BATCHES", "0.5")
    monkeypatch.setenv("PL_TRAINER_LIMIT_VAL_BATCHES", "0.25")
    monkeypatch.setenv("PL_TRAINER_LOGGER", "csv")
    trainer = L.Trainer()
    assert (trainer.max_epochs, trainer.flags.limit_val_batches) == (7, 0.5)
    assert isinstance(trainer.logger, L.loggers.CSVLogger)
    assert L.Trainer(max_epochs=2).max_epochs == 2


def test_a_wrong_value_in_the_environment_names_its_flag(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_ACCUMULATE_GRAD_BATCHES", "many")
    with pytest.raises(MisconfigurationException, match="`accumulate_grad_batches` must be"):
        L.Trainer(max_epochs=1)


def test_unknown_and_positional_flags():
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_epoch'; did you mean 'max_epochs'"):
        L.Trainer(max_epoch=1)
    with pytest.raises(MisconfigurationTypeError, match="by name only"):
        L.Trainer(3)


def test_devices():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert L.Trainer(max_epochs=1, gpus=0).flags.accelerator == "auto"
        assert L.Trainer(max_epochs=1, distributed_backend="ddp").strategy.strategy_name == "ddp"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_devices_that_are_not_there():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MisconfigurationException, match="No supported gpu backend found"):
            L.Trainer(max_epochs=1, gpus=2)
        with pytest.raises(ModuleNotFoundError, match=r"leyden-core\[xla\]"):
            L.Trainer(max_epochs=1, tpu_cores=8)


def test_checkpoints_and_early_stopping():
    saver, stopper = L.callbacks.ModelCheckpoint(), L.callbacks.EarlyStopping("x")
    assert old(checkpoint_callback=saver).checkpoint_callback is saver
    assert old(checkpoint_callback=False).checkpoint_callback is None
    assert old(early_stop_callback=stopper).early_stopping_callback is stopper
    assert old(early_stop_callback=True).early_stopping_callback.monitor == "early_stop_on"
    assert old(early_stop_callback=False).early_stopping_callback is None


def test_bar_and_summary():
    assert old(progress_bar_refresh_rate=0).progress_bar_callback is None
    assert old(progress_bar_refresh_rate=20).progress_bar_callback.refresh_rate == 20
    kinds = [type(c).__name__ for c in old(weights_summary=None).callbacks]
    assert "ModelSummary" not in kinds
    summary = next(c for c in old(weights_summary="full").callbacks if isinstance(c, L.callbacks.ModelSummary))
    assert summary.max_depth == -1


def test_resuming_and_manual_optimisation(tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
    L.Trainer(max_epochs=1, logger=False, callbacks=[saver], **quiet).fit(Model(), [torch.ones(1)] * 3)
    with pytest.warns(LightningDeprecationWarning, match=r"fit\(ckpt_path=...\)"):
        trainer = L.Trainer(
            max_epochs=2,
            logger=False,
            callbacks=[L.callbacks.ModelCheckpoint(dirpath=tmp_path)],
            resume_from_checkpoint=saver.best_model_path,
            **quiet,
        )
    trainer.fit(Model(), [torch.ones(1)] * 3)
    assert trainer.global_step == 6

    class Manual(Model):
        def training_step(self, batch):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward((self.w * batch).sum())
            optimizer.step()

    trainer = old(automatic_optimization=False, enable_checkpointing=False, **quiet)
    trainer.fit(Manual(), [torch.ones(1)] * 3)
    assert trainer.global_step == 3
