# SPDX-License-Identifier: Apache-2.0
"""Runs that go on: a second fit, more steps than were asked for at first, and the old way of a backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.seen: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append(float(batch[0].sum()))
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def data() -> Any:
    rows = torch.randn(16, 3, generator=torch.Generator().manual_seed(3))
    return DataLoader(TensorDataset(rows), batch_size=4, shuffle=True)


class SaveAtEpochEnd(L.Callback):
    def __init__(self, path: Any) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.save_checkpoint(self.path)


def test_an_epoch_that_max_steps_cut_goes_on_when_more_steps_are_asked_for(tmp_path: Any) -> None:
    whole, parts = Net(), Net()
    torch.manual_seed(7)
    L.Trainer(**QUIET, enable_checkpointing=False, max_steps=11).fit(whole, data())
    torch.manual_seed(7)
    save = SaveAtEpochEnd(tmp_path / "cut.ckpt")
    L.Trainer(**QUIET, enable_checkpointing=False, max_steps=6, callbacks=[save]).fit(parts, data())
    resumed = Net()
    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_steps=11)
    trainer.fit(resumed, data(), ckpt_path=tmp_path / "cut.ckpt")
    assert trainer.global_step == 11
    assert parts.seen + resumed.seen == whole.seen
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_the_same_number_of_steps_is_no_more_training(tmp_path: Any) -> None:
    save = SaveAtEpochEnd(tmp_path / "cut.ckpt")
    L.Trainer(**QUIET, enable_checkpointing=False, max_steps=6, callbacks=[save]).fit(Net(), data())
    resumed = Net()
    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_steps=6)
    trainer.fit(resumed, data(), ckpt_path=tmp_path / "cut.ckpt")
    assert trainer.global_step == 6
    assert resumed.seen == []


def test_the_middle_of_an_epoch_beyond_the_last_one_is_not_trained(tmp_path: Any) -> None:
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "second.ckpt")

    L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=2, callbacks=[Save()]).fit(Net(), data())
    resumed = Net()
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=0)
        trainer.fit(resumed, data(), ckpt_path=tmp_path / "second.ckpt")
    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1)
    trainer.fit(resumed, data(), ckpt_path=tmp_path / "second.ckpt")
    assert (trainer.current_epoch, trainer.global_step, resumed.seen) == (1, 6, [])


def test_a_fit_with_nothing_left_says_so_and_goes_on_with_more_epochs(capsys: Any) -> None:
    model = Net()
    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=2)
    trainer.fit(model, data())
    assert "nothing is left" not in capsys.readouterr().err
    trainer.fit(model, data())
    assert "nothing is left to train: 2 epochs and 8 steps are done" in capsys.readouterr().err
    assert len(model.seen) == 8
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, data())
    assert trainer.global_step == len(model.seen) == 12


def test_manual_backward_takes_the_optimizer_that_the_first_api_asked_for() -> None:
    class Old(Net):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch[0]).mean(), optimizer)
            optimizer.step()

    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1)
    trainer.fit(Old(), data())
    assert trainer.global_step == 4


def test_manual_backward_is_refused_in_automatic_mode() -> None:
    class Mixed(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch[0]).mean()
            self.manual_backward(loss)
            return loss

    with pytest.raises(MisconfigurationException, match="please disable automatic optimization"):
        L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1).fit(Mixed(), data())


def test_what_only_automatic_optimization_carries_out_is_refused_in_manual_mode() -> None:
    model = Net()
    model.automatic_optimization = False
    for flags, name in (({"accumulate_grad_batches": 2}, "accumulation"), ({"gradient_clip_val": 1.0}, "clipping")):
        trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1, **flags)
        with pytest.raises(MisconfigurationException, match=f"Automatic gradient {name} is not supported for manual"):
            trainer.fit(model, data())


def test_an_optimizer_step_that_forgets_the_closure_is_told() -> None:
    class Forgets(Net):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            pass

    with pytest.raises(MisconfigurationException, match="The closure hasn't been executed"):
        L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1).fit(Forgets(), data())


def test_alike_tensors_in_a_tuple_are_batches_and_others_are_columns() -> None:
    class Any_(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.seen.append(batch)
            x = batch[0] if isinstance(batch, tuple) else batch
            return self.layer(x).mean()

    batches, columns = Any_(), Any_()
    trainer = L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1)
    trainer.fit(batches, torch.ones(6, 4, 3).unbind())
    assert [batch.shape for batch in batches.seen] == [(4, 3)] * 6
    columns.batch_size = 4
    L.Trainer(**QUIET, enable_checkpointing=False, max_epochs=1).fit(columns, (torch.ones(6, 3), torch.ones(6)))
    assert [tuple(part.shape for part in batch) for batch in columns.seen] == [((4, 3), (4,)), ((2, 3), (2,))]


def test_an_epoch_too_short_for_a_row_is_said(tmp_path: Any) -> None:
    trainer = L.Trainer(**(QUIET | {"logger": "csv"}), max_epochs=1, default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"training batches \(4\) is smaller than the logging interval"):
        trainer.fit(Net(), data())
