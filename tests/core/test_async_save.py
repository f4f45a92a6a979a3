"""Files that are written beside the training hold what the run was when it was saved, and their failures are seen."""

import copy
import random
import resource
import signal
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import CheckpointError, CheckpointWriteError, MisconfigurationException


class Net(L.LightningModule):
    """Two layers of one weight, a part of another as a buffer, and dropout."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(300, 300)
        self.second = torch.nn.Linear(300, 300)
        self.second.weight = self.first.weight
        self.drop = torch.nn.Dropout(0.5)
        self.register_buffer("part", torch.arange(1000.0)[10:20])

    def training_step(self, batch, batch_idx):
        loss = self.second(self.drop(self.first(batch[0]))).square().mean()
        self.part.add_(1.0)
        self.log("loss", loss, on_epoch=True)
        self.log("falls", -float(self.global_step))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def data(samples=16):
    return DataLoader(TensorDataset(torch.arange(samples * 300.0).reshape(samples, 300) / 1000), 2, shuffle=True)


def train(quiet, folder, module=None, callbacks=(), ckpt_path=None, **options):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3 if ckpt_path is None else 99)
    saver = L.callbacks.ModelCheckpoint(
        dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_last=True
    )
    module = module or Net()
    trainer = quiet(callbacks=[saver, *callbacks], enable_checkpointing=None, **{"max_epochs": 2, **options})
    trainer.fit(module, data(), ckpt_path=ckpt_path)
    return trainer, module, saver


def contents(folder):
    found = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.ckpt")}
    for state in found.values():
        for entry in state["callbacks"].values():
            for key in ("dirpath", "best_model_path", "last_model_path"):
                entry.pop(key, None)
    return found


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_every_file_is_what_it_is_without(quiet, tmp_path):
    train(quiet, tmp_path / "beside", async_save=True)
    _, module, _ = train(quiet, tmp_path / "before")
    beside, before = contents(tmp_path / "beside"), contents(tmp_path / "before")
    assert len(before) == 17
    assert set(beside) == set(before)
    for name, state in before.items():
        assert same(beside[name], state), name
    assert same(beside["step=16.ckpt"]["state_dict"], module.state_dict())
    for name in before:
        sizes = [(tmp_path / way / name).stat().st_size for way in ("beside", "before")]
        assert abs(sizes[0] - sizes[1]) < 2000, "memory that tensors share is written once"


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(quiet, tmp_path):
    _, whole, _ = train(quiet, tmp_path, async_save=True)
    trainer, module, _ = train(quiet, tmp_path, async_save=True, ckpt_path=tmp_path / "step=5.ckpt")
    assert trainer.global_step == 16
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), whole.parameters(), strict=True))


class Looks(L.Callback):
    """Looks at what stands when each batch begins."""

    def __init__(self, folder):
        self.folder, self.counts = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.counts.append(len([path for path in self.folder.glob("*.ckpt") if path.name != "last.ckpt"]))


def test_an_old_file_goes_only_after_the_new_one_stands(quiet, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1)
    looks = Looks(tmp_path)
    quiet(max_epochs=3, async_save=True, callbacks=[saver, looks], enable_checkpointing=None).fit(Net(), data())
    assert set(looks.counts[2:]) <= {1, 2}
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=2-step=24.ckpt"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("save")]


@pytest.mark.parametrize("number", [1, 2])
def test_best_and_last_files(quiet, tmp_path, number):
    best = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "a", monitor="loss", save_top_k=number, save_last=True)
    also = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "b", every_n_train_steps=3, save_last="link")
    trainer = quiet(max_epochs=4, async_save=True, callbacks=[best, also], enable_checkpointing=None)
    trainer.fit(Net(), data())
    assert {str(path) for path in (tmp_path / "a").iterdir()} == {*best.best_k_models, best.last_model_path}
    assert len(best.best_k_models) == number
    assert torch.load(best.last_model_path, weights_only=True)["global_step"] == 32
    assert torch.load(also.last_model_path, weights_only=True)["global_step"] == 30


class Fails(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            raise ValueError("enough")


def test_a_run_that_fails_waits_for_its_file(quiet, tmp_path):
    with pytest.raises(ValueError, match="enough"):
        train(quiet, tmp_path, callbacks=[Fails()], async_save=True)
    assert torch.load(tmp_path / "step=2.ckpt", weights_only=True)["global_step"] == 2
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_the_module_asks_for(quiet, tmp_path):
    class Saves(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 2:
                self.trainer.save_checkpoint(tmp_path / "mine.ckpt")
                self.first.bias.data.fill_(7.0)

    trainer = quiet(max_epochs=1, async_save=True)
    trainer.fit(Saves(), data())
    state = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    assert state["global_step"] == 3
    assert not bool((state["state_dict"]["first.bias"] == 7.0).any())
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    assert torch.load(tmp_path / "after.ckpt", weights_only=True)["global_step"] == 8


@pytest.fixture
def _full():
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, before)


class Room(L.Callback):
    """There is room for files in the beginning."""

    def __init__(self, steps):
        self.steps, self.step = steps, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.steps:
            trainer._saves.settle()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    def on_train_start(self, trainer, pl_module):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.usefixtures("_full")
@pytest.mark.parametrize("monitor", [None, "falls"])
def test_a_full_disk_does_not_end_the_run(quiet, tmp_path, monitor):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=3, monitor=monitor)
    trainer = quiet(max_steps=8, async_save=True, callbacks=[saver, Room(4)], enable_checkpointing=None)
    with pytest.warns(UserWarning, match=r"LY-C012.*could not save the checkpoint.*number 1"):
        trainer.fit(Net(), data())
    assert trainer.global_step == 8
    assert [path.name for path in tmp_path.iterdir()] == ["step=3.ckpt"]
    assert saver.best_model_path == str(tmp_path / "step=3.ckpt")


@pytest.mark.usefixtures("_full")
def test_several_failures_in_a_row_end_the_run(quiet, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1)
    trainer = quiet(max_steps=8, async_save=True, max_failed_saves=2, callbacks=[saver], enable_checkpointing=None)
    with (
        pytest.warns(UserWarning, match="LY-C012"),
        pytest.raises(CheckpointWriteError, match="could not save the checkpoint"),
    ):
        trainer.fit(Net(), data())
    assert trainer.global_step < 8
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_full")
def test_a_failure_of_a_file_that_the_module_asks_for_is_raised(quiet, tmp_path):
    class Saves(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 2:
                self.trainer.save_checkpoint(tmp_path / "mine.ckpt")

    with pytest.raises(CheckpointWriteError, match=r"mine\.ckpt"):
        quiet(max_epochs=1, async_save=True).fit(Saves(), data())


def test_what_can_not_be_written_is_refused_at_once(quiet, tmp_path):
    class Odd(Net):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["odd"] = object()

    with pytest.raises(CheckpointError, match="only code could rebuild"):
        train(quiet, tmp_path, Odd(), async_save=True)
    assert not list(tmp_path.iterdir())


def test_the_state_is_copied_whole(quiet, tmp_path):
    kept = {"list": [torch.zeros(2)], "set": {1}, "bytes": bytearray(b"ab")}
    kept["view"] = kept["list"][0][1:]
    kept["conj"] = torch.tensor([1 + 2j]).conj()

    class Keeps(Net):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["kept"] = kept

        def on_train_batch_end(self, outputs, batch, batch_idx):
            kept["list"][0].add_(1.0)
            kept["list"].append(batch_idx)
            kept["bytes"][0] += 1

    reference = copy.deepcopy(kept)
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    quiet(max_steps=3, async_save=True, callbacks=[saver], enable_checkpointing=None).fit(Keeps(), data())
    state = torch.load(tmp_path / "step=1.ckpt", weights_only=True)["kept"]
    assert state["list"][1:] == []
    assert torch.equal(state["list"][0], torch.zeros(2))
    assert state["view"].untyped_storage().data_ptr() == state["list"][0].untyped_storage().data_ptr()
    assert state["bytes"] == bytearray(b"ab")
    assert torch.equal(state["conj"], reference["conj"])


@pytest.mark.parametrize("value", ["yes", 1, 0.5])
def test_the_flag_is_a_bool(value):
    with pytest.raises(MisconfigurationException, match="async_save"):
        L.Trainer(async_save=value)
