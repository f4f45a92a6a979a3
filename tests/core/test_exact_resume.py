"""Data of every kind, from every place, with any number of workers: a resumed run has the bits of the whole one."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

import leyden.core as L
from leyden.core.errors import MisconfigurationException


class Augmented(Dataset):
    """Draws from all three generators for each sample; the last column tells which sample it is."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        noise = torch.rand(2) + np.random.rand() + random.random()
        return torch.cat([noise, torch.tensor([float(index)])])


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


def train(quiet, make, workers=0, *, path=None, save_at=0, hook="on_train_batch_end", seed=5, **options):
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start(seed)
    model, loader = Net(), make(workers)
    callbacks = [SaveAt(path, save_at, hook)] if save_at else []
    trainer = quiet(max_epochs=3, callbacks=callbacks, **options)
    trainer.fit(model, loader, ckpt_path=None if save_at else path)
    return model


def plain(workers):
    return DataLoader(Augmented(), 4, shuffle=True, num_workers=workers)


def in_order(workers):
    return DataLoader(Augmented(), 4, num_workers=workers)


def persistent(workers):
    return DataLoader(Augmented(), 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def persistent_in_order(workers):
    return DataLoader(Augmented(), 4, num_workers=workers, persistent_workers=workers > 0)


def seeded(workers):
    generator = torch.Generator().manual_seed(2)
    return DataLoader(Augmented(), 4, shuffle=True, num_workers=workers, generator=generator)


def replaced(workers):
    sampler = RandomSampler(Augmented(), replacement=True, num_samples=24)
    return DataLoader(Augmented(), 4, sampler=sampler, num_workers=workers)


class Lazy(Sampler):
    """Draws an index whenever one is asked for, from a generator that everybody draws from."""

    def __init__(self, draw):
        self.draw = draw

    def __iter__(self):
        return (self.draw() for _ in range(24))

    def __len__(self):
        return 24


def lazy_torch(workers):
    return DataLoader(Augmented(), 4, sampler=Lazy(lambda: int(torch.randint(24, ()))), num_workers=workers)


class Buckets(Sampler):
    """Batches of indices, drawn one by one from Python's generator."""

    def __iter__(self):
        left = [list(range(start, start + 4)) for start in range(0, 24, 4)]
        while left:
            yield left.pop(random.randrange(len(left)))

    def __len__(self):
        return 6


def buckets(workers):
    return DataLoader(Augmented(), batch_sampler=Buckets(), num_workers=workers)


class Owns(Sampler):
    """Has a generator of its own, which goes on from epoch to epoch."""

    def __init__(self, generator):
        self.numbers = generator

    def __iter__(self):
        order = list(range(24))
        self.numbers.shuffle(order)
        return iter(order)

    def __len__(self):
        return 24


def owns_python(workers):
    return DataLoader(Augmented(), 4, sampler=Owns(random.Random(3)), num_workers=workers)


def owns_numpy(workers):
    return DataLoader(Augmented(), 4, sampler=Owns(np.random.default_rng(3)), num_workers=workers)


def owns_philox(workers):
    return DataLoader(Augmented(), 4, sampler=Owns(np.random.Generator(np.random.Philox(3))), num_workers=workers)


def owns_legacy(workers):
    return DataLoader(Augmented(), 4, sampler=Owns(np.random.RandomState(3)), num_workers=workers)


class Told(Sampler):
    """Its order depends on the epoch that it was told."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(24).tolist())

    def __len__(self):
        return 24


def told(workers):
    return DataLoader(Augmented(), 4, sampler=Told(), num_workers=workers)


def several(workers):
    return {"a": plain(workers), "b": DataLoader(Augmented(), 3, shuffle=True, num_workers=workers)}


def _wide(workers):
    return DataLoader(
        Augmented(),
        batch_sampler=BatchSampler(SequentialSampler(Augmented()), 4, drop_last=True),
        collate_fn=lambda samples: torch.stack(samples) * torch.rand(()),
        num_workers=workers,
    )


LOADERS = [
    plain, in_order, persistent, persistent_in_order, seeded, replaced, lazy_torch, buckets,
    told, owns_python, owns_numpy, owns_philox, owns_legacy, _wide,
]  # fmt: skip
MOMENTS = [
    ("on_train_batch_end", 8),
    ("on_train_batch_end", 6),
    ("on_train_epoch_end", 12),
    ("on_train_epoch_start", 6),
]


def check(whole, resumed):
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    tail = whole.seen[len(whole.seen) - len(resumed.seen) :]
    assert all(torch.equal(a, b) for a, b in zip(tail, resumed.seen, strict=True))


@pytest.mark.parametrize(("hook", "step"), MOMENTS)
@pytest.mark.parametrize("make", LOADERS)
def test_without_workers(quiet, tmp_path, make, hook, step):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, make, path=path, save_at=step, hook=hook)
    resumed = train(quiet, make, path=path, seed=77)
    assert len(resumed.seen) == 18 - step
    check(whole, resumed)


@pytest.mark.parametrize(
    ("make", "workers"),
    [
        *((plain, pair) for pair in [(2, 2), (0, 2), (2, 0), (1, 2)]),
        *((buckets, pair) for pair in [(0, 2), (2, 0)]),
        *((make, (2, 0)) for make in [persistent_in_order, lazy_torch, seeded]),
    ],
)
def test_with_workers_also_another_number_of_them(quiet, tmp_path, make, workers):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, make, workers[0], path=path, save_at=8)
    resumed = train(quiet, make, workers[1], path=path, seed=77)
    check(whole, resumed)


@pytest.mark.parametrize("step", [6, 12])
def test_workers_that_stay_have_other_seeds_in_each_epoch(quiet, tmp_path, step):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, persistent_in_order, 2, path=path, save_at=step, hook="on_train_epoch_end")
    check(whole, train(quiet, persistent_in_order, 2, path=path, seed=77))
    noise = torch.cat(whole.seen)[:, 0]
    assert len(set(noise.tolist())) == len(noise)


@pytest.mark.parametrize("make", [in_order, plain])
def test_an_open_window(quiet, tmp_path, make):
    class Batches(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "at.ckpt")

    def run(path, callbacks, seed):
        for start in (random.seed, np.random.seed, torch.manual_seed):
            start(seed)
        model = Net()
        quiet(max_epochs=3, accumulate_grad_batches=3, callbacks=callbacks).fit(model, make(0), ckpt_path=path)
        return model

    whole = run(None, [Batches()], 5)
    check(whole, run(tmp_path / "at.ckpt", [], 77))


def test_several_loaders(quiet, tmp_path):
    class Several(Net):
        def training_step(self, batch, batch_idx):
            self.seen.append(torch.cat([batch["a"], batch["b"]]))
            return self.net(self.seen[-1]).square().mean()

    def run(path, seed, workers, **options):
        for start in (random.seed, np.random.seed, torch.manual_seed):
            start(seed)
        model = Several()
        quiet(max_epochs=2, **options).fit(model, several(workers), ckpt_path=path)
        return model

    path = tmp_path / "at.ckpt"
    whole = run(None, 5, 0, callbacks=[SaveAt(path, 11, "on_train_batch_end")])
    check(whole, run(path, 77, 0))
    check(whole, run(path, 78, 2))


def test_the_order_is_that_of_a_plain_loop(quiet):
    """Seeds of batches leave the samplers' order, and what the steps draw, as they are."""
    whole = train(quiet, plain)
    torch.manual_seed(5)
    Net()
    loader, expected, masks = plain(0), [], torch.nn.Dropout(0.4)
    for _ in range(3):
        for indices in _indices(loader):
            expected.append(indices)
            masks(torch.ones(4, 4))
    assert [batch[:, 2].int().tolist() for batch in whole.seen] == expected


def _indices(loader):
    torch.empty((), dtype=torch.int64).random_()
    return iter(loader.batch_sampler)


def test_without_seeds_generators_are_left_alone(quiet, tmp_path):
    path = tmp_path / "at.ckpt"
    whole = train(quiet, in_order, path=path, save_at=8, exact=False)
    check(whole, train(quiet, in_order, path=path, seed=77, exact=False))
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start(5)
    Net()
    torch.empty((), dtype=torch.int64).random_()
    expected = torch.stack([Augmented()[index] for index in range(4)])
    assert torch.equal(whole.seen[0], expected)


@pytest.mark.parametrize("value", ["yes", 2, None])
def test_the_flag(value):
    with pytest.raises(MisconfigurationException, match="exact"):
        L.Trainer(exact=value)
