# SPDX-License-Identifier: Apache-2.0
"""A training to be killed. As a program it forks one for every job that it reads, so that torch is imported once."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch.utils.data import DataLoader, Dataset

import leyden.core as L

EPOCHS, SAMPLES, BATCH = 3, 32, 4
STEPS = EPOCHS * SAMPLES // BATCH
SAVERS = {
    "both": {"save_top_k": 1, "save_last": True},
    "top": {"save_top_k": 1},
    "last": {"save_top_k": 0, "save_last": True},
    "link": {"save_top_k": 1, "save_last": "link", "every_n_train_steps": 2},
    "best": {"save_top_k": 2, "save_last": True, "monitor": "loss", "every_n_train_steps": 2},
}


class Samples(Dataset):
    """Numbered samples with random noise, as an augmentation makes it."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return index, torch.full((8,), float(index)) / SAMPLES + torch.rand(8)


class Victim(L.LightningModule):
    """One square layer of a chosen width behind dropout; its buffer is a hash of all the samples that it saw."""

    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        self.enter = torch.nn.Linear(8, width)
        self.drop = torch.nn.Dropout(0.3)
        self.square = torch.nn.Linear(width, width)
        self.register_buffer("seen", torch.zeros(32, dtype=torch.uint8))

    def training_step(self, batch, batch_idx):
        indices, x = batch
        order = bytes(self.seen.tolist()) + bytes(indices.tolist())
        self.seen.copy_(torch.tensor(list(hashlib.sha256(order).digest()), dtype=torch.uint8))
        loss = self.square(self.drop(self.enter(x))).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=False)
        self.log("mean", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Word(L.Callback):
    """Says when the steps begin."""

    def __init__(self, say):
        self.say = say

    def on_train_start(self, trainer, pl_module):
        self.say(f"stepping {trainer.global_step}")


def digest(trainer, module):
    """Return one hash of all that a run ends with: weights, data order, optimiser and logged values."""
    whole = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        whole.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for index, state in trainer.optimizers[0].state_dict()["state"].items():
        for name, tensor in state.items():
            whole.update(f"{index} {name}".encode() + tensor.contiguous().numpy().tobytes())
    logged = {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}
    return {"step": trainer.global_step, "digest": whole.hexdigest(), "logged": logged}


def train(folder, width, saver, beside=False, say=print):
    """Train, or go on, in a folder; leaves ``end.json`` there when it is through."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    module, folder = Victim(width), Path(folder)
    savers = []
    if saver is not None:
        options = {"every_n_train_steps": 1, **SAVERS[saver]}
        savers = [L.callbacks.ModelCheckpoint(dirpath=folder / "checkpoints", **options)]
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        async_save=beside,
        callbacks=[Word(say), *savers],
        enable_checkpointing=saver is not None,
        log_every_n_steps=1,
        **silent,
    )
    loader = DataLoader(Samples(), BATCH, shuffle=True, generator=None)
    trainer.fit(module, loader, ckpt_path="auto" if saver is not None else None)
    draft = folder / "end.draft"
    draft.write_text(json.dumps(digest(trainer, module)))
    draft.replace(folder / "end.json")


def die_at(number, folder):
    """Kill this process just before the n-th time that it opens, renames, links or deletes something in a folder."""
    left = number

    def watch(event, arguments):
        nonlocal left
        if event in ("open", "os.rename", "os.link", "os.remove", "os.symlink", "os.truncate") and any(
            isinstance(a, (str, Path)) and str(a).startswith(folder) for a in arguments[:2]
        ):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def child(job):
    """Do one job in this process, which ends with it."""
    with open(job["folder"] + "/log.txt", "a") as log:
        out = os.dup(1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ["TMPDIR"] = job.pop("scratch")
    tempfile.tempdir = None
    at = job.pop("at", None)
    if at is not None:
        die_at(at, job["folder"] + "/checkpoints")
    train(**job, say=lambda word: os.write(out, f"{word}\n".encode()))


def serve():
    """Fork a process for every line with a job; say its id, then what it says, then how it ended."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()  # it imports a part of torch that is slow to come
    os.write(1, b"ready\n")
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    child(json.loads(line))
                    code = 0
                except BaseException:
                    sys.excepthook(*sys.exc_info())
            os._exit(code)
        os.write(1, f"pid {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    serve()
