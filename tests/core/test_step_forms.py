# SPDX-License-Identifier: Apache-2.0
"""Forms of a training step besides the usual one: weights, batches that the step fetches, windows in manual mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import leyden.core as L
from leyden.core.errors import MisconfigurationException

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(model: L.LightningModule, data: Any, **options: Any) -> L.Trainer:
    trainer = L.Trainer(**(QUIET | {"max_epochs": 1} | options))
    trainer.fit(model, data)
    return trainer


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(count))


# -- weights -----------------------------------------------------------------------------------------------------------


class Weighted(Net):
    as_tensor = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        weight: Any = torch.tensor(float(len(batch))) if self.as_tensor else len(batch)
        return {"loss": self.loss(batch), "weight": weight}


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("optimizer", ["straight", "closure"])
def test_a_window_of_weighted_batches_is_the_mean_over_all_samples(as_tensor: bool, optimizer: str) -> None:
    class Model(Weighted):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    if optimizer == "closure":
        Model.optimizer_step = lambda self, epoch, batch_idx, opt, closure: opt.step(closure=closure)  # type: ignore
    Model.as_tensor = as_tensor
    data = rows(12)
    whole, parts = Model(), Model()
    fit(whole, [data])
    trainer = fit(parts, [data[:2], data[2:3], data[3:]], accumulate_grad_batches=3)
    assert trainer.global_step == 1
    assert torch.allclose(whole.layer.weight, parts.layer.weight, atol=1e-7)


def test_without_a_weight_every_batch_of_a_window_counts_the_same() -> None:
    class Plain(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return self.loss(batch)

    data = rows(12)
    weighted, plain = Weighted(), Plain()
    for model in (weighted, plain):
        fit(model, [data[:2], data[2:]], accumulate_grad_batches=2)
    assert not torch.allclose(weighted.layer.weight, plain.layer.weight)


def test_a_window_of_weight_zero_leaves_the_parameters() -> None:
    class Zero(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), "weight": torch.zeros(())}

    model = Zero()
    before = model.layer.weight.detach().clone()
    fit(model, [rows(4)] * 2, accumulate_grad_batches=2)
    assert torch.equal(before, model.layer.weight)


@pytest.mark.parametrize("weight", [-1, "many", torch.ones(2)])
def test_a_weight_that_is_none_is_refused(weight: Any) -> None:
    class Wrong(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), "weight": weight}

    with pytest.raises(MisconfigurationException, match="the 'weight' that `training_step` returned"):
        fit(Wrong(), [rows(4)] * 2, accumulate_grad_batches=2)


def test_a_window_in_which_only_some_batches_have_a_weight_is_refused() -> None:
    class Mixed(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return {"loss": self.loss(batch), **({"weight": 2} if batch_idx else {})}

    with pytest.raises(MisconfigurationException, match="must return a 'weight', or none"):
        fit(Mixed(), [rows(4)] * 2, accumulate_grad_batches=2)


def test_an_open_window_of_weighted_batches_resumes_exactly(tmp_path: Any) -> None:
    data = [rows(n) for n in (2, 5, 3, 4, 1, 6)]

    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "open.ckpt")

    whole, resumed = Weighted(), Weighted()
    fit(whole, data, accumulate_grad_batches=3, callbacks=[Save()])
    trainer = L.Trainer(**QUIET, max_epochs=1, accumulate_grad_batches=3)
    trainer.fit(resumed, data, ckpt_path=tmp_path / "open.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)


# -- batches that the step fetches -------------------------------------------------------------------------------------


class Fetching(Net):
    def __init__(self, take: int = 1) -> None:
        super().__init__()
        self.take, self.seen = take, []

    def training_step(self, dataloader_iter: Any) -> Any:
        losses = []
        for _ in range(self.take):
            batch, batch_idx, dataloader_idx = next(dataloader_iter)
            self.seen.append((self.current_epoch, batch_idx, dataloader_idx))
            losses.append(self.loss(batch))
        loss = torch.stack(losses).mean()
        self.log("loss", loss, on_epoch=True)
        return loss


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_fetches_its_batches_trains_like_one_that_is_given_them(accumulate: int) -> None:
    class Given(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("loss", loss, on_epoch=True)
            return loss

    data = [rows(n + 1) for n in range(5)]
    given, fetching = Given(), Fetching()
    first = fit(given, data, max_epochs=2, accumulate_grad_batches=accumulate)
    second = fit(fetching, data, max_epochs=2, accumulate_grad_batches=accumulate)
    assert torch.equal(given.layer.weight, fetching.layer.weight)
    assert first.global_step == second.global_step
    assert {k: float(v) for k, v in first.callback_metrics.items()} == {
        k: float(v) for k, v in second.callback_metrics.items()
    }
    assert fetching.seen == [(epoch, i, 0) for epoch in range(2) for i in range(5)]


def test_a_step_may_fetch_several_batches_and_the_epoch_ends_where_they_do() -> None:
    model = Fetching(take=2)
    trainer = fit(model, [rows(2)] * 5)
    assert trainer.global_step == 2
    assert [i for _, i, _ in model.seen] == [0, 1, 2, 3, 4]


def test_a_step_that_fetches_goes_through_data_without_a_length() -> None:
    model = Fetching()
    trainer = fit(model, iter([rows(2)] * 3))
    assert trainer.global_step == 3


def test_a_step_that_fetches_nothing_is_told_to() -> None:
    class Idle(Net):
        def training_step(self, dataloader_iter: Any) -> Any:
            return self.loss(rows(2))

    with pytest.raises(MisconfigurationException, match=r"call `next\(dataloader_iter\)`"):
        fit(Idle(), [rows(2)] * 3)


# -- windows in manual optimisation ------------------------------------------------------------------------------------


class Manual(Net):
    clip: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        self.optimizers().accumulate(self.loss(batch), batches=3, clip=self.clip)


class Automatic(Net):
    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        return self.loss(batch)


@pytest.mark.parametrize("sized", [True, False])
def test_accumulate_in_manual_mode_is_accumulation_in_automatic_mode(sized: bool) -> None:
    data = [rows(n + 2) for n in range(7)]
    manual, automatic = Manual(), Automatic()
    one = fit(manual, data if sized else (batch for batch in data))
    other = fit(automatic, data if sized else (batch for batch in data), accumulate_grad_batches=3)
    assert one.global_step == other.global_step == 3
    assert torch.allclose(manual.layer.weight, automatic.layer.weight, atol=1e-7)


def test_accumulate_clips_the_whole_window() -> None:
    manual, automatic = Manual(), Automatic()
    manual.clip = 0.01
    data = [rows(n + 2) for n in range(6)]
    fit(manual, data)
    fit(automatic, data, accumulate_grad_batches=3, gradient_clip_val=0.01)
    assert torch.allclose(manual.layer.weight, automatic.layer.weight, atol=1e-7)


def test_gradients_that_manual_optimization_holds_back_are_in_the_checkpoint(tmp_path: Any) -> None:
    data = [rows(n + 2) for n in range(7)]

    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 4:
                trainer.save_checkpoint(tmp_path / "open.ckpt")

    whole, resumed = Manual(), Manual()
    fit(whole, data, callbacks=[Save()])
    L.Trainer(**QUIET, max_epochs=1).fit(resumed, data, ckpt_path=tmp_path / "open.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)


def test_what_optimizers_gives_is_an_optimizer_of_the_wrapped_class() -> None:
    seen: list[Any] = []

    class Look(Manual):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            seen.append(self.optimizers())
            with self.optimizers().toggle_model():
                self.manual_backward(self.loss(batch))
            self.optimizers().step()

    trainer = fit(Look(), [rows(2)] * 2)
    assert isinstance(seen[0], torch.optim.SGD)
    assert type(seen[0]).__name__ == "LightningSGD"
    assert seen[0] is seen[1]
    assert seen[0].optimizer is trainer.optimizers[0]
    assert seen[0].param_groups is trainer.optimizers[0].param_groups


# -- profilers ---------------------------------------------------------------------------------------------------------


def test_a_profiler_measures_hooks_steps_and_loading() -> None:
    from leyden.core.profilers import SimpleProfiler

    class Model(Automatic):
        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.log("loss", self.loss(batch))

        def on_train_batch_end(self, *args: Any) -> None:
            pass

    class Watch(L.Callback):
        def on_train_start(self, *args: Any) -> None:
            pass

    profiler = SimpleProfiler()
    trainer = L.Trainer(**QUIET, max_epochs=2, profiler=profiler, callbacks=[Watch()])
    assert trainer.profiler is profiler
    trainer.fit(Model(), [rows(2)] * 3, [rows(2)] * 2)
    counts = {action: len(times) for action, times in profiler.recorded_durations.items()}
    assert counts["run_training_epoch"] == 2
    for action in ("run_training_batch", "[_TrainingEpochLoop].train_dataloader_next"):
        assert counts[action] == 6
    for step in ("training_step", "backward", "validation_step"):
        assert counts[f"[Strategy]SingleDeviceStrategy.{step}"] == 6
    assert counts["[LightningModule]Model.on_train_batch_end"] == 6
    assert counts["[LightningModule]Model.optimizer_step"] == 6
    assert counts[f"[Callback]{Watch().state_key}.on_train_start"] == 1


@pytest.mark.parametrize("profiler", ["nothing", 3])
def test_an_unknown_profiler_is_refused(profiler: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="profiler"):
        L.Trainer(max_epochs=1, profiler=profiler)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_steps_of_evaluation_may_fetch_their_batches_too(verb: str) -> None:
    seen: list[Any] = []

    class Model(Automatic):
        def validation_step(self, dataloader_iter: Any) -> Any:
            batch, batch_idx, dataloader_idx = next(dataloader_iter)
            seen.append((batch_idx, dataloader_idx, len(batch)))
            if verb != "predict":
                self.log("rows", float(len(batch)))
            return batch

        test_step = predict_step = validation_step

    trainer = L.Trainer(**QUIET, max_epochs=1)
    loaders = [DataLoader(batches, batch_size=None) for batches in ([rows(1), rows(3)], [rows(2)])]
    if verb == "predict":
        found = trainer.predict(Model(), loaders)
        assert [[len(batch) for batch in loader] for loader in found] == [[1, 3], [2]]
    else:
        found = getattr(trainer, verb)(Model(), loaders, verbose=False)
        assert found == [{"rows/dataloader_idx_0": 2.5}, {"rows/dataloader_idx_1": 2.0}]
    assert seen == [(0, 0, 1), (1, 0, 3), (0, 1, 2)]


def test_intervals_of_callbacks_take_units() -> None:
    from datetime import timedelta

    from leyden.core.callbacks import ModelCheckpoint, Timer

    assert Timer("90s").time_remaining() == 90
    assert Timer("1.5h").time_remaining() == 5400
    saver = ModelCheckpoint(every_n_train_steps="500st")
    assert "500" in saver.state_key
    assert ModelCheckpoint(every_n_epochs="2ep").every_n_epochs == 2
    assert repr(timedelta(minutes=30)) in ModelCheckpoint(train_time_interval="30min").state_key
    with pytest.raises(MisconfigurationException, match="`every_n_train_steps` counts optimiser steps"):
        ModelCheckpoint(every_n_train_steps="2ep")
    with pytest.raises(MisconfigurationException, match="`train_time_interval` is a time"):
        ModelCheckpoint(train_time_interval="2ep")
