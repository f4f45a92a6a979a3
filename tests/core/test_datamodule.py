"""Data modules: who is asked for which loader, built from data sets, and through a checkpoint."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, TensorDataset

import leyden.core as L
from leyden.core.errors import CheckpointError, LeydenWarning, MisconfigurationException


class Data(L.LightningDataModule):
    def __init__(self, n: int = 4, folder: Path = Path("x"), transform=None):
        super().__init__()
        self.save_hyperparameters()
        self.seen = 0

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.arange(self.hparams.n, dtype=torch.float32)))

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


@pytest.fixture
def summing(tiny):
    """A module that notes the sum of what each step sees, and has loaders of its own."""

    class Summing(tiny):
        def __init__(self):
            super().__init__()
            self.sums = {}

        def note(self, name, batch):
            self.sums[name] = self.sums.get(name, 0) + float(batch[0].sum())

        def training_step(self, batch, batch_idx):
            self.note("train", batch)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            if not self.trainer.sanity_checking:
                self.note("val", batch)

        def test_step(self, batch, batch_idx):
            self.note("test", batch)

        def predict_step(self, batch, batch_idx):
            self.note("predict", batch)

        def train_dataloader(self):
            return [[torch.full((1,), 100.0)]]

        val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    return Summing()


def every_verb(trainer, model, **data):
    trainer.fit(model, **data)
    trainer.validate(model, verbose=False, **data)
    trainer.test(model, verbose=False, **data)
    trainer.predict(model, **data)
    return model.sums


def test_its_loaders_win_over_the_module_s(quiet, summing):
    assert every_verb(quiet(), summing, datamodule=Data()) == {"train": 6, "val": 12, "test": 6, "predict": 6}


def test_without_one_the_module_is_asked(quiet, summing):
    assert every_verb(quiet(), summing) == {"train": 100, "val": 200, "test": 100, "predict": 100}


def test_what_it_does_not_define_the_module_is_asked_for(quiet, summing):
    class TrainOnly(L.LightningDataModule):
        def train_dataloader(self):
            return Data().train_dataloader()

    quiet().fit(summing, datamodule=TrainOnly())
    assert summing.sums == {"train": 6, "val": 100}


def test_it_may_stand_in_the_place_of_loaders(quiet, summing):
    quiet().fit(summing, Data())
    quiet().test(summing, Data(), verbose=False)
    assert summing.sums == {"train": 6, "val": 6, "test": 6}


def test_it_and_loaders_at_once_are_refused(quiet, summing, numbers):
    for arguments in ({"train_dataloaders": numbers()}, {"val_dataloaders": numbers()}):
        with pytest.raises(MisconfigurationException, match="cannot pass dataloaders and a `datamodule`"):
            quiet().fit(summing, datamodule=Data(), **arguments)
    for verb in ("validate", "test", "predict"):
        with pytest.raises(MisconfigurationException, match="cannot pass dataloaders and a `datamodule`"):
            getattr(quiet(), verb)(summing, numbers(), datamodule=Data())
    with pytest.raises(MisconfigurationException, match="cannot pass dataloaders and a `datamodule`"):
        quiet().fit(summing, Data(), numbers())


def test_something_else_in_its_place_is_refused(quiet, summing):
    with pytest.raises(TypeError, match="`datamodule` must be a `LightningDataModule`, got `object`"):
        quiet().fit(summing, datamodule=object())


@pytest.mark.parametrize(
    ("verb", "stage"), [("fit", "fit"), ("validate", "validate"), ("test", "test"), ("predict", "predict")]
)
def test_it_is_prepared_set_up_and_torn_down_for_the_stage(quiet, summing, verb, stage):
    calls = []

    class Noting(Data):
        def prepare_data(self):
            calls.append("prepare_data")

        def setup(self, stage):
            calls.append(f"setup {stage}")
            assert self.trainer is not None

        def teardown(self, stage):
            calls.append(f"teardown {stage}")

    getattr(quiet(), verb)(summing, datamodule=Noting())
    assert calls == ["prepare_data", f"setup {stage}", f"teardown {stage}"]


def test_its_transfer_hooks_win(quiet, summing):
    class Tripling(Data):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [3 * batch[0]]

    quiet(limit_val_batches=0).fit(summing, datamodule=Tripling())
    assert summing.sums == {"train": 18}


def test_the_trainer_does_not_travel_with_copies(quiet, summing):
    data = Data()
    trainer = quiet()
    trainer.fit(summing, datamodule=data)
    assert data.trainer is trainer is summing.trainer
    assert trainer.datamodule is data
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert other.trainer is None
        assert other.hparams.n == 4


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.fixture
def file_of(saved, summing):
    """Save a run with a data module."""
    return lambda data: saved(summing, datamodule=data)


def test_its_state_goes_on(quiet, summing, file_of):
    data = Data()
    data.seen = 5
    path = file_of(data)
    other = Data()
    quiet().fit(summing, datamodule=other, ckpt_path=path)
    assert other.seen == 5


def test_it_is_built_from_a_checkpoint(file_of):
    data = Data(7, Path("y"))
    data.seen = 5
    path = file_of(data)
    loaded = Data.load_from_checkpoint(path)
    assert (dict(loaded.hparams), loaded.seen) == ({"n": 7, "folder": Path("y"), "transform": None}, 5)
    assert Data.load_from_checkpoint(path, n=2).hparams.n == 2


def test_its_hyper_parameters_stand_beside_the_module_s(saved, tiny):
    class Named(tiny):
        def __init__(self, n=1):
            super().__init__()
            self.save_hyperparameters()

        def validation_step(self, batch, batch_idx): ...

    path = saved(Named(9), datamodule=Data(9))
    assert (Named.load_from_checkpoint(path).hparams.n, Data.load_from_checkpoint(path).hparams.n) == (9, 9)
    with pytest.raises(RuntimeError, match=r"Error while merging hparams: the keys \['n'\]"):
        saved(Named(3), datamodule=Data(9))


def test_an_omitted_argument_is_asked_for(file_of):
    class Needs(Data):
        def __init__(self, transform):
            L.LightningDataModule.__init__(self)
            self.save_hyperparameters({"n": 4})
            self.save_hyperparameters("transform")
            self.seen = 0

    with pytest.warns(LeydenWarning, match="LY-H002.*'transform'"):
        data = Needs(abs)
    path = file_of(data)
    with pytest.raises(CheckpointError, match=r"'transform'.*transform=\.\.\."):
        Needs.load_from_checkpoint(path)
    assert Needs.load_from_checkpoint(path, transform=1).hparams.transform == 1


# -- from data sets ----------------------------------------------------------------------------------------------------


def points(n):
    return TensorDataset(torch.arange(n, dtype=torch.float32))


def test_from_data_sets(quiet, summing):
    sets = {f"{kind}_dataset": points(n) for kind, n in (("train", 3), ("val", 4), ("test", 5), ("predict", 6))}
    data = L.LightningDataModule.from_datasets(**sets, batch_size=2)
    train, val = data.train_dataloader(), data.val_dataloader()
    assert (train.batch_size, len(train), len(val)) == (2, 2, 2)
    assert isinstance(train.sampler, RandomSampler)
    assert isinstance(val.sampler, SequentialSampler)
    assert every_verb(quiet(), summing, datamodule=data) == {"train": 3, "val": 12, "test": 10, "predict": 15}


def test_only_the_given_data_sets_have_loaders(quiet, summing):
    quiet().fit(summing, datamodule=L.LightningDataModule.from_datasets(train_dataset=points(3)))
    assert summing.sums == {"train": 3, "val": 100}


def test_several_data_sets_of_one_kind_and_data_without_a_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    data = L.LightningDataModule.from_datasets(
        train_dataset=Stream(), val_dataset=[points(2), points(4)], test_dataset={"a": points(1), "b": points(2)}
    )
    assert len(list(data.train_dataloader())) == 3
    assert [len(loader) for loader in data.val_dataloader()] == [2, 4]
    assert {name: len(loader) for name, loader in data.test_dataloader().items()} == {"a": 1, "b": 2}


def test_arguments_of_the_class_are_passed_on():
    assert Data.from_datasets(points(2), n=9).hparams.n == 9


def test_the_class_gets_the_batch_size_and_the_workers_if_it_takes_them():
    class Sized(L.LightningDataModule):
        def __init__(self, batch_size=1, **rest):
            super().__init__()
            self.got = batch_size, rest

    assert Sized.from_datasets(points(2), batch_size=3).got == (3, {"num_workers": 0})


def test_a_hook_that_nobody_defined_says_so():
    for kind in ("train", "val", "test", "predict"):
        with pytest.raises(MisconfigurationException, match=f"`{kind}_dataloader` must be implemented"):
            getattr(L.LightningDataModule(), f"{kind}_dataloader")()


def test_its_text_tells_what_is_known_of_its_data():
    class Various(L.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(points(4))

        def val_dataloader(self):
            return [DataLoader(points(3)), range(3)]

        def test_dataloader(self):
            return DataLoader(self.not_set_up)

    assert str(Various()).splitlines() == [
        "{Train dataloader: size=4}",
        "{Validation dataloader: 1. size=3 ; 2. size=NA}",
        "{Test dataloader: size=NA}",
        "{Predict dataloader: None}",
    ]
    assert "{Predict dataloader: a. size=2}" in str(
        L.LightningDataModule.from_datasets(predict_dataset={"a": points(2)})
    )
