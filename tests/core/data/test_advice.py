"""What is probably a mistake in a loader is said, and what the seed promises to workers is kept."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

import leyden.core as L
from leyden.core.data.combined import CombinedLoader
from leyden.core.errors import MisconfigurationException, PossibleUserWarning

POINTS = torch.arange(4.0)


@pytest.fixture
def plain(tiny):
    class Plain(tiny):
        def training_step(self, batch, batch_idx):
            self.first = batch if batch_idx == 0 else self.first
            return self.weight.sum()

        def validation_step(self, batch, batch_idx): ...

        test_step = predict_step = validation_step

    return Plain()


@pytest.mark.parametrize(("verb", "kind"), [("validate", "val"), ("test", "test")])
def test_shuffling_where_results_are_measured_is_advised_against(quiet, plain, verb, kind):
    with pytest.warns(PossibleUserWarning, match=f"Your `{kind}_dataloader`'s sampler has shuffling enabled"):
        getattr(quiet(), verb)(plain, DataLoader(POINTS, sampler=RandomSampler(POINTS)), verbose=False)


def test_no_advice_is_given_where_it_would_be_wrong(quiet, plain):
    quiet().fit(plain, DataLoader(POINTS, shuffle=True), DataLoader(POINTS, sampler=SequentialSampler(POINTS)))
    quiet().predict(plain, DataLoader(POINTS, shuffle=True))


def test_a_stream_that_knows_its_length_may_be_wrong_with_workers(quiet, plain):
    class Stream(IterableDataset):
        def __len__(self):
            return 2

        def __iter__(self):
            return iter([1, 2])

    with pytest.warns(PossibleUserWarning, match="Your `IterableDataset` has `__len__` defined"):
        quiet().fit(plain, DataLoader(Stream()), DataLoader(POINTS))


@pytest.mark.parametrize("make", [lambda loader: loader, lambda loader: [loader], CombinedLoader])
@pytest.mark.filterwarnings("ignore:.*You requested to overfit:UserWarning")
def test_overfitting_takes_every_loader_in_order(quiet, plain, make):
    quiet(overfit_batches=1, num_sanity_val_steps=0).fit(
        plain, make(DataLoader(POINTS, 4, shuffle=True)), DataLoader(POINTS, shuffle=True)
    )
    first = plain.first[0] if isinstance(plain.first, list) else plain.first
    assert first.tolist() == POINTS.tolist()


@pytest.fixture
def seeded(monkeypatch):
    """Set what `seed_everything(workers=...)` leaves in the environment."""
    return lambda workers: monkeypatch.setenv("PL_SEED_WORKERS", str(int(workers)))


def test_workers_are_seeded_if_the_seed_was_meant_for_them(quiet, plain, seeded):
    mine = DataLoader(POINTS, worker_init_fn=abs)
    one, two, three = DataLoader(POINTS), DataLoader(POINTS), DataLoader(POINTS)
    seeded(True)
    quiet().fit(plain, CombinedLoader([one, mine]), two)
    seeded(False)
    quiet().validate(plain, three, verbose=False)
    assert one.worker_init_fn is not None
    assert two.worker_init_fn is not None
    assert (mine.worker_init_fn, three.worker_init_fn) == (abs, None)


@pytest.mark.parametrize(
    ("verb", "where"),
    [("validate", "validate(dataloaders"), ("test", "test(dataloaders"), ("predict", "predict(datal")],
)
def test_what_can_not_be_iterated_is_a_type_error_that_names_the_argument(quiet, plain, verb, where):
    with pytest.raises(TypeError) as error:
        getattr(quiet(), verb)(plain, 3)
    assert isinstance(error.value, MisconfigurationException)
    assert f"An invalid dataloader was passed to `Trainer.{where}" in str(error.value)


@pytest.mark.parametrize("kind", ["val", "test", "predict"])
def test_without_batches_no_loader_is_asked_for(quiet, plain, kind):
    class Never(L.LightningDataModule):
        def val_dataloader(self):
            raise AssertionError("nothing of it is wanted")

        test_dataloader = predict_dataloader = val_dataloader

    verb = {"val": "validate"}.get(kind, kind)
    assert not getattr(quiet(**{f"limit_{kind}_batches": 0}), verb)(plain, datamodule=Never())


def test_samplers_of_any_kind_are_told_the_epoch(quiet, plain):
    class Told:
        epochs = []

        def __iter__(self):
            return iter(range(4))

        def __len__(self):
            return 4

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    quiet(max_epochs=2, limit_val_batches=0).fit(plain, DataLoader(POINTS, sampler=Told()), DataLoader(POINTS))
    assert Told.epochs == [0, 1]
