"""Runs of two processes whose checkpoints are folders; one process reads them too.

The file is also the script of the processes, which torchrun starts.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.callbacks import Callback, ModelCheckpoint
from leyden.core.checkpoint import manifest, sharded
from leyden.core.checkpoint.store import scan
from leyden.core.errors import DamagedCheckpointError
from leyden.core.strategies import FSDPStrategy


class Net(L.LightningModule):
    def __init__(self, width=7):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class Count(Callback):
    def __init__(self):
        self.batches = 0

    def on_train_batch_end(self, *args):
        self.batches += 1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


def loader():
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)


def trained(folder, epochs, ckpt_path=None, devices=2, filename="{epoch}", **options):
    strategy = FSDPStrategy(state_dict_type="sharded") if devices > 1 else "auto"
    saver = ModelCheckpoint(dirpath=folder, filename=filename, save_last=True, save_top_k=-1, **options)
    count = Count()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=devices, strategy=strategy, callbacks=[saver, count],
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    torch.manual_seed(4)
    module = Net()
    trainer.fit(module, loader(), ckpt_path=ckpt_path)
    found = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in module.state_dict().items()
    }
    found["batches"] = count.batches
    found["loss"] = trainer.callback_metrics["loss_epoch"]
    return found


def epochs(folder):
    """Three epochs at once; one, and then two more, each from the newest folder."""
    straight = trained(folder / "straight", 3)
    trained(folder / "cut", 1)
    second = trained(folder / "cut", 2, "last")
    return {"straight": straight, "second": second, "third": trained(folder / "cut", 3, "last")}


def steps(folder):
    """From the middle of an epoch; six steps are one epoch."""
    straight = trained(folder / "straight", 2, every_n_train_steps=4, filename="{step}")
    resumed = trained(folder / "cut", 2, folder / "straight" / "step=8.ckpt", every_n_train_steps=4, filename="{step}")
    return {"straight": straight, "resumed": resumed}


def best(folder):
    """Only the newest stays; and a disk that is full for the second process at the second of three saves."""
    kept = [path.name for path in saved(folder / "kept", 3, save_top_k=1)]

    class Full(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.global_rank == 1 and trainer.current_epoch < 3:
                least = 100 if trainer.current_epoch == 1 else most
                resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stood = [path.name for path in saved(folder / "full", 3, Full(), save_top_k=-1)]
    said = [str(each.message) for each in told if "LY-C012" in str(each.message)]
    return {"kept": kept, "stood": stood, "said": said}


def saved(folder, epochs, *callbacks, **options):
    saver = ModelCheckpoint(dirpath=folder, filename="{epoch}", **options)
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=2, strategy=FSDPStrategy(state_dict_type="sharded"),
        callbacks=[saver, *callbacks], logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Net(), loader())
    return sorted(folder.iterdir())


def main(case, folder):
    found = CASES[case](folder)
    if int(os.environ["RANK"]) == 0:
        torch.save(found, folder / "found.pt")


CASES = {"epochs": epochs, "steps": steps, "best": best}


def run(folder, case):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*start, __file__, case, str(folder)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return torch.load(folder / "found.pt", weights_only=True)


def alike(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def found(folder):
    return run(folder, "epochs")


def test_runs_that_go_on_from_folders_end_as_the_uninterrupted_one(found):
    alike(found["third"], found["straight"])
    assert found["third"]["batches"] == 18
    assert not torch.equal(found["second"]["layers.0.weight"], found["straight"]["layers.0.weight"])


def test_a_run_goes_on_from_the_middle_of_an_epoch(tmp_path):
    found = run(tmp_path, "steps")
    alike(found["resumed"], found["straight"])


def test_folders_are_found_by_what_they_say(found, folder):
    entries, damaged = scan(folder / "cut")
    assert damaged == []
    assert [entry.path.name for entry in entries] == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"]
    assert [entry.record["step"] for entry in entries] == [6, 12, 18]
    assert entries[-1].record["finished"]
    assert (folder / "cut" / "last.ckpt").samefile(folder / "cut" / "epoch=2.ckpt")
    names = {path.name for path in (folder / "cut" / "epoch=2.ckpt").iterdir()}
    assert names == {"__0_0.distcp", "__1_0.distcp", ".metadata", "rest.ckpt", "leyden.json"}


def test_a_module_is_loaded_from_a_folder(found, folder):
    module = Net.load_from_checkpoint(folder / "cut" / "last.ckpt")
    assert module.hparams == {"width": 7}
    alike(dict(module.state_dict()), {name: found["straight"][name] for name in module.state_dict()})


@pytest.mark.filterwarnings("ignore:.*The dirpath has changed", "ignore:.*values logged over the open epoch")
def test_one_process_goes_on_from_a_folder_of_two(found, folder, tmp_path):
    with pytest.warns(UserWarning, match="world was 2, is 1"):
        one = trained(tmp_path, 4, folder / "cut" / "last.ckpt", devices=1)
    assert one["batches"] == 18 + 12
    stood = sharded.load(folder / "cut" / "last.ckpt")
    assert (tmp_path / "epoch=3.ckpt").is_file()
    own = sharded.load(tmp_path / "epoch=3.ckpt")
    assert list(own["state_dict"]) == list(stood["state_dict"])
    assert own["optimizer_states"][0]["state"][0]["step"] == 30


@pytest.mark.filterwarnings("ignore:.*The dirpath has changed", "ignore:.*values logged over the open epoch")
def test_a_damaged_folder_is_passed_over(found, folder, tmp_path):
    shutil.copytree(folder / "cut", tmp_path / "cut", symlinks=True)
    for number in range(3):
        manifest.restamp(tmp_path / "cut" / f"epoch={number}.ckpt", finished=False)
    shard = tmp_path / "cut" / "epoch=2.ckpt" / "__1_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedCheckpointError, match=r"__1_0\.distcp"):
        Net.load_from_checkpoint(tmp_path / "cut" / "epoch=2.ckpt")
    with pytest.warns(UserWarning, match="world was 2, is 1"):
        one = trained(tmp_path / "cut", 3, "auto", devices=1)
    assert one["batches"] == 12 + 12


def test_older_folders_go_and_a_failed_save_costs_nothing(tmp_path):
    found = run(tmp_path, "best")
    assert found["kept"] == ["epoch=2.ckpt"]
    assert found["stood"] == ["epoch=0.ckpt", "epoch=2.ckpt"]
    (said,) = found["said"]
    assert "process 1 could not write its shards" in said
    assert "Training goes on" in said
    for path in (tmp_path / "full").iterdir():
        manifest.verify(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
