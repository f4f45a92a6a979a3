"""Runs of two processes that are saved on the way, and the runs that go on from those files.

As a script it does all of them as one of two processes, and the first process writes the differences.
"""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import leyden.core as L


class Augmented(Dataset):
    """Draws from all three generators for each sample."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        return torch.cat([torch.rand(2) + np.random.rand() + random.random(), torch.tensor([float(index)])])


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.4), torch.nn.Linear(4, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.clone())
        loss = self.net(batch).square().mean()
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class SaveAt(L.Callback):
    def __init__(self, path, batches):
        self.path, self.batches, self.count = path, batches, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.count += 1
        if self.count == self.batches:
            trainer.save_checkpoint(self.path)


def shuffled(workers):
    return DataLoader(Augmented(), 4, shuffle=True, num_workers=workers)


def in_order(workers):
    return DataLoader(Augmented(), 4, num_workers=workers)


def own_sampler(workers):
    # its constructor asks for the group, which there is not yet
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    sampler = DistributedSampler(Augmented(), num_replicas=2, rank=rank, shuffle=True)
    return DataLoader(Augmented(), 4, sampler=sampler, num_workers=workers)


RUNS = {
    "shuffled": (shuffled, 0, 0, 8, {}),
    "shuffled, at the end of an epoch": (shuffled, 0, 0, 6, {}),
    "in order, with workers": (in_order, 0, 1, 8, {}),
    "a sampler of one's own": (own_sampler, 0, 0, 8, {"use_distributed_sampler": False}),
    "an open window": (shuffled, 0, 0, 8, {"accumulate_grad_batches": 3}),
    "written beside the training": (shuffled, 0, 0, 8, {"async_save": True}),
    "shards": (shuffled, 0, 0, 8, {"strategy": "fsdp"}),
}


def train(make, workers, path, save_at, folder, **flags):
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start((5 if save_at else 77) + rank)
    module = Net()
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    callbacks = [SaveAt(path, save_at)] if save_at else []
    trainer = L.Trainer(
        accelerator="cpu", devices=2, default_root_dir=folder, max_epochs=2, callbacks=callbacks, **off,
        **{"strategy": "ddp", **flags},
    )  # fmt: skip
    trainer.fit(module, make(workers), ckpt_path=None if save_at else path)
    return module, {key: float(value) for key, value in trainer.callback_metrics.items()}


def run(name, folder):
    """Return what differs between a run and the one that went on from its file."""
    make, before, after, save_at, flags = RUNS[name]
    path = folder / "at.ckpt"
    whole, metrics = train(make, before, path, save_at, folder, **flags)
    again, more = train(make, after, path, 0, folder, **flags)
    tail = whole.seen[len(whole.seen) - len(again.seen) :]
    here = {
        "batches": len(again.seen),
        "weights": [n for n, p in whole.state_dict().items() if not _same(p, again.state_dict()[n])],
        "data": [i for i, (a, b) in enumerate(zip(tail, again.seen, strict=True)) if not torch.equal(a, b)],
        "metrics": [key for key in metrics if metrics[key] != more[key]],
        "noise": sorted(set(torch.cat(whole.seen)[:, 0].tolist())),
    }
    everywhere = [None, None]
    torch.distributed.all_gather_object(everywhere, here)
    return everywhere


def _same(one, other):
    local = getattr(one, "to_local", lambda: one)(), getattr(other, "to_local", lambda: other)()
    return torch.equal(*local)


if __name__ == "__main__":
    target, found = Path(sys.argv[1]), {}
    for index, each in enumerate(RUNS):
        found[each] = run(each, target.parent / f"run{index}")
    if torch.distributed.get_rank() == 0:
        target.write_text(json.dumps(found))
