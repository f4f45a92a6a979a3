"""Feeds, order, sources and transfer hooks."""

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import leyden.core as L
from leyden.core.data.feed import Feed, limited
from leyden.core.data.order import Order
from leyden.core.data.source import is_collection, is_loader
from leyden.core.errors import MisconfigurationException


def numbers(n=12):
    return TensorDataset(torch.arange(n))


def taken(batches):
    return [batch[0].tolist() for batch in batches]


SAMPLERS = {
    "shuffle": lambda d: DataLoader(d, 3, shuffle=True),
    "seeded": lambda d: DataLoader(d, 3, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "weighted": lambda d: DataLoader(d, 3, sampler=WeightedRandomSampler([1.0] * 12, 12)),
    "replacement": lambda d: DataLoader(d, 3, sampler=RandomSampler(d, replacement=True, num_samples=12)),
    "batch sampler": lambda d: DataLoader(d, batch_sampler=BatchSampler(RandomSampler(d), 3, drop_last=False)),
    "no batches": lambda d: DataLoader(d, batch_size=None, shuffle=True),
    "workers": lambda d: DataLoader(d, 3, shuffle=True, num_workers=2),
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("position", [1, 3])
def test_an_epoch_is_replayed_from_its_position(kind, position):
    torch.manual_seed(5)
    loader = SAMPLERS[kind](numbers())
    order = Order(loader)
    order.attach()
    whole = taken(b if kind != "no batches" else [b[0]] for b in order.iterate())
    start = order.start
    torch.manual_seed(99)
    again = SAMPLERS[kind](numbers())
    other = Order(again)
    other.attach()
    rest = other.iterate(position, start)
    assert taken(b if kind != "no batches" else [b[0]] for b in rest) == whole[position:]
    assert torch.equal(other.start["torch"], start["torch"])


def test_replaying_reads_no_data():
    class Counting(torch.utils.data.Dataset):
        reads = 0

        def __len__(self):
            return 12

        def __getitem__(self, i):
            Counting.reads += 1
            return i

    order = Order(DataLoader(Counting(), 3, shuffle=True))
    order.attach()
    list(order.iterate())
    start, Counting.reads = order.start, 0
    assert len(list(order.iterate(3, start))) == 1
    assert Counting.reads == 3


def test_the_random_state_outside_is_untouched_by_a_replay():
    order = Order(DataLoader(numbers(), 3, shuffle=True))
    order.attach()
    list(order.iterate())
    batches = order.iterate(2, order.start)
    before = torch.get_rng_state()
    next(batches)
    assert torch.equal(torch.get_rng_state(), before)


def test_attached_loaders_still_look_like_themselves():
    loader = DataLoader(numbers(), 3, shuffle=True, drop_last=True)
    order = Order(loader)
    order.attach()
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert (loader.batch_sampler.batch_size, loader.batch_sampler.drop_last, len(loader)) == (3, True, 4)
    order.detach()
    assert type(loader.batch_sampler) is BatchSampler


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(10, 1.0, 10), (10, 0.25, 2), (10, 3, 3), (10, 30, 10), (10, 0, 0), (10, 0.0, 0), (None, 4, 4), (None, 1.0, None)],
)
def test_limits(length, limit, expected):
    assert limited(length, limit, "limit_train_batches") == expected


def test_limits_that_leave_nothing_or_need_a_length():
    with pytest.raises(MisconfigurationException, match=r"Try at least `limit_val_batches=0.1`"):
        limited(10, 0.05, "limit_val_batches")
    with pytest.raises(MisconfigurationException, match=r"must be `1.0` or an int. An int specifies `num_val_batches`"):
        limited(None, 0.5, "limit_val_batches")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(7))


@pytest.mark.parametrize(
    "loader", [DataLoader(Stream(), 2), DataLoader(TensorDataset(torch.arange(7)), 2)], ids=["unsized", "sized"]
)
@pytest.mark.parametrize("limit", [1.0, 2])
def test_the_last_batch_is_known(loader, limit):
    feed = Feed(loader, limit, "limit")
    seen = [feed.is_last for _ in feed.batches()]
    assert seen == [False] * (3 if limit == 1.0 else 1) + [True]


@pytest.mark.parametrize(
    ("value", "loader", "collection"),
    [
        (DataLoader(numbers()), True, False),
        (range(3), True, False),
        ([torch.ones(1)], False, False),
        ([DataLoader(numbers()), range(2)], False, True),
        ({"a": DataLoader(numbers())}, False, True),
        ({"a": torch.ones(1)}, False, False),
        ([[torch.ones(1), torch.ones(1)]], False, False),
        ([], False, False),
        ("text", False, False),
    ],
)
def test_what_is_a_loader_and_what_is_data(value, loader, collection):
    assert is_loader(value) is loader
    assert is_collection(value) is collection


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.w.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path):
    return L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def test_transfer_hooks_of_the_data_module_win(tmp_path):
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return [1, 2]

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch * 10

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch + 1

    class Both(Model):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            raise AssertionError("the data module's hook is meant")

    model = Both()
    trainer(tmp_path).fit(model, datamodule=Data())
    assert model.seen == [11, 21]


def test_samplers_are_told_the_epoch(tmp_path):
    class Told(RandomSampler):
        epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    data = numbers()
    t = L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    t.fit(Model(), DataLoader(data, 3, sampler=Told(data)))
    assert Told.epochs == [0, 1, 2]


def test_loaders_from_the_module_itself_and_from_a_data_module_in_the_place_of_loaders(tmp_path):
    class Own(Model):
        def train_dataloader(self):
            return [torch.ones(1)] * 2

    own = Own()
    trainer(tmp_path).fit(own)
    assert len(own.seen) == 2

    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return [torch.ones(1)] * 3

    model = Model()
    trainer(tmp_path).fit(model, Data())
    assert len(model.seen) == 3
    with pytest.raises(MisconfigurationException, match="You cannot pass dataloaders and a `datamodule`"):
        trainer(tmp_path).fit(model, [torch.ones(1)], datamodule=Data())


@pytest.mark.parametrize("given", [3, "text", 1.5])
def test_what_can_not_be_iterated_is_named(tmp_path, given):
    with pytest.raises(
        MisconfigurationException, match=r"An invalid dataloader was passed to `Trainer.fit\(train_dataloaders=...\)`"
    ):
        trainer(tmp_path).fit(Model(), given)
