"""Data that can only be iterated over: exact with a state of its own, gone through again with a warning without."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

import leyden.core as L
from leyden.core.errors import LeydenWarning, MisconfigurationException

# torchdata calls what torch has deprecated since
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


class Stream(IterableDataset):
    """Numbers in an order that depends on the epoch and the worker, with noise of its own generator."""

    def __init__(self, length=24):
        self.length, self.epoch, self.given, self.loaded = length, -1, 0, False
        self.noise = torch.Generator().manual_seed(9)

    def __iter__(self):
        info = get_worker_info()
        number, count = (0, 1) if info is None else (info.id, info.num_workers)
        if not self.loaded:
            self.epoch, self.given = self.epoch + 1, 0
        self.loaded = False
        mine = range(number, self.length, count)
        while self.given < len(mine):
            value = mine[(self.given + self.epoch) % len(mine)]
            self.given += 1
            yield torch.cat([torch.rand(2, generator=self.noise), torch.tensor([float(value)])])

    def state_dict(self):
        return {"epoch": self.epoch, "given": self.given, "noise": self.noise.get_state()}

    def load_state_dict(self, state):
        self.epoch, self.given, self.loaded = state["epoch"], state["given"], True
        self.noise.set_state(state["noise"])


class Plain(IterableDataset):
    """The same numbers again and again."""

    def __iter__(self):
        return (torch.tensor([1.0, 2.0, float(value)]) for value in range(24))


class Stored(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.cat([torch.rand(2) + np.random.rand() + random.random(), torch.tensor([float(index)])])


class Own:
    """A loader of no library, with a length and a state."""

    def __init__(self, length=6):
        self.length, self.at, self.epoch = length, 0, -1

    def __len__(self):
        return self.length

    def __iter__(self):
        if self.at in (0, self.length):
            self.at, self.epoch = 0, self.epoch + 1
        while self.at < self.length:
            self.at += 1
            yield torch.full((4, 3), float(self.at + 10 * self.epoch))

    def state_dict(self):
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state):
        self.at, self.epoch = state["at"], state["epoch"]


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.4), torch.nn.Linear(4, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.clone())
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class SaveAt(L.Callback):
    def __init__(self, path, steps, hook):
        def save(trainer, pl_module, *args):
            if trainer.global_step == steps and not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def train(quiet, loader, path, save_at=0, hook="on_train_batch_end", **options):
    torch.manual_seed(5 if save_at else 77)
    model = Net()
    callbacks = [SaveAt(path, save_at, hook)] if save_at else []
    quiet(max_epochs=3, callbacks=callbacks, **options).fit(model, loader, ckpt_path=None if save_at else path)
    return model


def check(whole, resumed):
    tail = whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert all(torch.equal(a, b) for a, b in zip(tail, resumed.seen, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def stream():
    return StatefulDataLoader(Stream(), 4)


def stream_of_workers():
    return StatefulDataLoader(Stream(), 4, num_workers=2)


def stored():
    return StatefulDataLoader(Stored(), 4, shuffle=True)


def stored_by_workers():
    return StatefulDataLoader(Stored(), 4, shuffle=True, num_workers=2)


MOMENTS = [
    ("on_train_batch_end", 8),
    ("on_train_batch_end", 6),
    ("on_train_batch_end", 12),
    ("on_train_epoch_end", 6),
    ("on_train_epoch_start", 6),
]


@pytest.mark.parametrize(("hook", "step"), MOMENTS)
@pytest.mark.parametrize("make", [stream, stored, Own, stream_of_workers])
def test_a_loader_with_a_state_goes_on_exactly(quiet, tmp_path, make, hook, step):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, make(), path, step, hook, exact="refuse")
    assert len(whole.seen) == 18
    resumed = train(quiet, make(), path, exact="refuse")
    assert len(resumed.seen) == 18 - step
    check(whole, resumed)


def test_workers_of_a_stateful_loader_over_stored_samples(quiet, tmp_path):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, stored_by_workers(), path, 8)
    check(whole, train(quiet, stored_by_workers(), path))


def test_a_window_that_the_unsized_data_cut(quiet, tmp_path):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, stream(), path, 3, accumulate_grad_batches=4)
    check(whole, train(quiet, stream(), path, accumulate_grad_batches=4))


def test_a_limit(quiet, tmp_path):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, stream(), path, 6, limit_train_batches=4)
    check(whole, train(quiet, stream(), path, limit_train_batches=4))


def test_loaders_beside_each_other(quiet, tmp_path):
    class Both(Net):
        def training_step(self, batch, batch_idx):
            self.seen.append(torch.cat(list(batch.values())))
            return self.net(self.seen[-1]).square().mean()

    def run(path, **options):
        torch.manual_seed(5)
        model = Both()
        loaders = {"stream": stream(), "stored": DataLoader(Stored(), 3, shuffle=True)}
        quiet(max_epochs=2, **options).fit(model, loaders, ckpt_path=path)
        return model

    path = tmp_path / "at.ckpt"
    whole = run(None, callbacks=[SaveAt(path, 11, "on_train_batch_end")])
    check(whole, run(path))


def test_without_a_state_it_is_gone_through_again_and_said(quiet, tmp_path):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, DataLoader(Plain(), 4), path, 8)
    with pytest.warns(LeydenWarning, match=r"LY-D008.*batch 2 of a DataLoader.*loaded once more.*StatefulDataLoader"):
        resumed = train(quiet, DataLoader(Plain(), 4), path)
    check(whole, resumed)


def test_a_list_of_batches_needs_no_warning(quiet, tmp_path):
    batches = [torch.full((4, 3), float(index)) for index in range(6)]
    path = tmp_path / "at.ckpt"
    whole = train(quiet, batches, path, 8, exact="refuse")
    check(whole, train(quiet, batches, path, exact="refuse"))


def test_what_can_not_go_on_exactly_is_refused_on_request(quiet, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"exact='refuse'.*DataLoader.*state_dict.*exact=True"):
        train(quiet, DataLoader(Plain(), 4), tmp_path / "at.ckpt", 8, exact="refuse")
