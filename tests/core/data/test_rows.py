"""Arrays, columns and data sets are data: given to a verb, returned from a hook, or put into a data module."""

import logging
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, Subset

import leyden.core as L
from leyden.core.data.combined import CombinedLoader
from leyden.core.data.rows import Rows, loader_over
from leyden.core.errors import MisconfigurationException

X, Y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6)
Pair = namedtuple("Pair", "x y")


class Squares(Dataset):
    def __len__(self):
        return 70

    def __getitem__(self, index):
        return torch.tensor(index**2)


@pytest.fixture
def trained(tiny):
    """A module that keeps what its training steps get."""

    class Trained(tiny):
        def __init__(self, **attributes):
            super().__init__()
            self.trained = []
            self.__dict__.update(attributes)

        def training_step(self, batch, batch_idx):
            self.trained.append(batch)
            return self.weight.sum()

    return Trained


@pytest.fixture
def seeing(trained):
    """A module that keeps what all its steps get."""

    class Seeing(trained):
        def __init__(self, **attributes):
            super().__init__(**attributes)
            self.evaluated = []

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.evaluated.append((dataloader_idx, batch))

        test_step = predict_step = validation_step

    return Seeing


def batches_of(value, batch_size=4):
    return list(loader_over(value, batch_size, shuffle=False))


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [X, torch.from_numpy(X)], ids=["array", "tensor"])
def test_a_batch_of_an_array_holds_rows_of_its_own_type(array):
    first, second = batches_of(array)
    assert torch.equal(first, torch.from_numpy(X[:4]))
    assert torch.equal(second, torch.from_numpy(X[4:]))
    assert first.dtype == torch.float32


def test_a_batch_is_a_copy():
    loader = loader_over(X, 6, shuffle=False)
    next(iter(loader)).zero_()
    assert X[1, 0] == 2


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        ((X, Y), lambda b: b),
        (Pair(X, Y), lambda b: (b.x, b.y)),
        ({"x": X, "y": torch.from_numpy(Y)}, lambda b: (b["x"], b["y"])),
        (({"deep": X}, Y), lambda b: (b[0]["deep"], b[1])),
        (np.rec.fromarrays([X[:, 0], Y], names="x,y"), lambda b: (torch.stack([b["x"], b["x"] + 1], 1), b["y"])),
    ],
    ids=["tuple", "named tuple", "dict", "nested", "structured"],
)
def test_columns_keep_their_shape_and_belong_row_to_row(columns, read):
    loader = loader_over(columns, 4, shuffle=True)
    x, y = (torch.cat(parts) for parts in zip(*map(read, loader), strict=True))
    assert sorted(y.tolist()) == Y.tolist()
    assert torch.equal(x[:, 0], 2 * y.float())


def test_text_and_dates_stay_lists():
    dates = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]")
    words, days, things = batches_of((np.array(["a", "b"]), dates, np.array([None, {}], dtype=object)))[0]
    assert (words, days, things) == (["a", "b"], list(dates), [None, {}])


def test_bytes_of_another_machine_are_turned():
    assert batches_of(np.arange(3, dtype=">i4"))[0].tolist() == [0, 1, 2]


def test_one_row_and_a_part_of_the_rows():
    rows = Rows({"x": X, "word": np.array(list("abcdef"))})
    assert (len(rows), rows[1]["x"].tolist(), rows[-1]["word"]) == (6, [2, 3], "f")
    with pytest.raises(IndexError):
        rows[6]
    assert DataLoader(Subset(Rows((X, Y)), [1, 3]), 2, collate_fn=list).dataset[1][1] == 3


def test_columns_of_different_length_are_refused():
    with pytest.raises(MisconfigurationException, match=r"lengths are 6, 5.*given as a list"):
        loader_over((X, Y[:5]), 4, shuffle=False)


# -- given to a verb ---------------------------------------------------------------------------------------------------


def test_training_draws_the_order_and_evaluation_does_not(quiet, seeing):
    model = seeing(batch_size=2)
    quiet(max_epochs=2, num_sanity_val_steps=0).fit(model, (X, Y), X)
    epochs = [torch.cat([b[1] for b in model.trained[k : k + 3]]).tolist() for k in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == Y.tolist()
    assert torch.equal(torch.cat([b for _, b in model.evaluated[:3]]), torch.from_numpy(X))


@pytest.mark.parametrize(
    ("data", "count"), [(Squares(), 3), (np.zeros((33, 2)), 2), (torch.zeros(64), 2)], ids=["set", "array", "tensor"]
)
def test_a_batch_has_32_rows_where_nobody_says_otherwise(quiet, trained, data, count):
    model = trained()
    quiet().fit(model, data)
    assert len(model.trained) == count
    assert len(model.trained[0]) == 32


def test_the_module_or_its_hyper_parameters_say_the_batch_size(quiet, seeing):
    class Sized(seeing):
        def __init__(self, batch_size):
            super().__init__()
            self.save_hyperparameters()

    for model in (seeing(batch_size=3), Sized(3)):
        quiet().validate(model, X, verbose=False)
        assert [len(batch) for _, batch in model.evaluated] == [3, 3]


def test_a_data_module_returns_arrays_and_says_the_batch_size(quiet, seeing):
    class Data(L.LightningDataModule):
        batch_size = 5

        def train_dataloader(self):
            return X, Y

        def val_dataloader(self):
            return {"a": Squares(), "b": DataLoader(X)}

    model = seeing()
    quiet(num_sanity_val_steps=0).fit(model, datamodule=Data())
    assert [len(x) for x, _ in model.trained] == [5, 1]
    assert [index for index, _ in model.evaluated] == [0] * 14 + [1] * 6


def test_every_verb_takes_them(quiet, seeing):
    for verb in ("validate", "test", "predict"):
        model = seeing(batch_size=4)
        getattr(quiet(), verb)(model, (X, Y))
        assert [len(y) for _, (_, y) in model.evaluated] == [4, 2]


def test_data_sets_beside_loaders_are_a_collection(quiet, seeing, trained):
    model = trained()
    quiet().fit(model, {"a": Squares(), "b": DataLoader(X, 2)})
    assert set(model.trained[0]) == {"a", "b"}
    model = seeing()
    quiet().validate(model, CombinedLoader([Squares(), DataLoader(X, 2)], "sequential"), verbose=False)
    assert [index for index, _ in model.evaluated] == [0, 0, 0, 1, 1, 1]


def test_a_list_of_arrays_is_batches_and_a_tuple_is_columns(quiet, trained, caplog):
    caplog.set_level(logging.INFO, "leyden.core")
    as_list, as_tuple = trained(), trained(batch_size=6)
    quiet().fit(as_list, [X, X])
    quiet().fit(as_tuple, (X, X))
    assert [batch.shape for batch in as_list.trained] == [(6, 2)] * 2
    assert [[part.shape for part in batch] for batch in as_tuple.trained] == [[(6, 2), (6, 2)]]
    text = " ".join(caplog.messages)
    assert "a list, is read as 2 batches" in text
    assert "a tuple, is read as columns of the same rows, 6 in a batch" in text


def test_a_dict_of_lists_names_the_batches(quiet, seeing, trained):
    model = seeing()
    quiet().validate(model, {"a": [0, 1], "b": [torch.ones(1)]}, verbose=False)
    assert model.evaluated == [(0, 0), (0, 1), (1, torch.ones(1))]
    model = trained()
    quiet().fit(model, {"a": [torch.ones(1)] * 2, "b": [0]})
    assert model.trained == [{"a": torch.ones(1), "b": 0}] * 2


def test_a_dict_that_is_neither_is_refused(quiet, trained):
    with pytest.raises(MisconfigurationException, match="An invalid dataloader was passed"):
        quiet().fit(trained(), {"a": 1, "b": X})


def test_overfitting_goes_in_order_without_a_word(quiet, trained):
    model = trained(batch_size=2)
    quiet(overfit_batches=2).fit(model, X)
    assert torch.equal(torch.cat(model.trained), torch.from_numpy(X[:4]))


def test_a_data_set_that_says_how_it_is_iterated_gives_its_own_batches(quiet, trained):
    class Own(Squares):
        def __iter__(self):
            return iter([1, 2])

    model = trained()
    quiet().fit(model, Own())
    assert model.trained == [1, 2]


def test_what_only_knows_its_elements_is_iterated(quiet, trained):
    class Old:
        def __getitem__(self, index):
            if index == 2:
                raise IndexError
            return index

    model = trained()
    quiet().fit(model, Old())
    assert model.trained == [0, 1]


# -- in a data module --------------------------------------------------------------------------------------------------


def test_a_data_module_is_made_from_them():
    data = L.LightningDataModule.from_datasets((X, Y), X, {"a": X, "b": X}, [Squares(), Squares()], batch_size=4)
    assert isinstance(data.train_dataloader().sampler, RandomSampler)
    assert isinstance(data.val_dataloader().sampler, SequentialSampler)
    assert [len(x) for x, _ in data.train_dataloader()] == [4, 2]
    assert [set(batch) for batch in data.test_dataloader()] == [{"a", "b"}] * 2
    assert [len(loader) for loader in data.predict_dataloader()] == [18, 18]


def test_workers_load_them():
    loader = L.LightningDataModule.from_datasets(val_dataset=(X, Y), batch_size=4, num_workers=1).val_dataloader()
    assert torch.cat([y for _, y in loader]).tolist() == Y.tolist()


# -- resume ------------------------------------------------------------------------------------------------------------


def test_a_run_resumed_in_the_middle_of_an_epoch_sees_the_rows_that_were_left(quiet, trained, tmp_path):
    class Saving(trained):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 1:
                self.trainer.save_checkpoint(tmp_path / "one.ckpt")

    whole, rest = Saving(batch_size=2), trained(batch_size=2)
    quiet(max_epochs=2).fit(whole, (X, Y))
    torch.manual_seed(99)
    quiet(max_epochs=2).fit(rest, (X, Y), ckpt_path=tmp_path / "one.ckpt")
    assert [y.tolist() for _, y in rest.trained] == [y.tolist() for _, y in whole.trained][1:]
