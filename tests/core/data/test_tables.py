"""Tables of pandas, Arrow and Hugging Face are data, each read by its own rules for what is missing or no number."""

import subprocess
import sys

import datasets
import pandas as pd
import pyarrow as pa
import pytest
import torch

import leyden.core as L
from leyden.core.data.rows import Rows, loader_over
from leyden.core.errors import MisconfigurationException

COLUMNS = {"a": [1, 2, 3, 4, 5, 6], "word": list("uvwxyz")}
TABLES = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow in pieces": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 1), pa.table(COLUMNS).slice(1)]),
    "arrow batch": lambda: pa.RecordBatch.from_pydict(COLUMNS),
    "hugging face": lambda: datasets.Dataset.from_dict(COLUMNS),
    "hugging face, formatted": lambda: datasets.Dataset.from_dict(COLUMNS).with_format("numpy"),
    "hugging face, a stream": lambda: datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset(),
    "hugging face, transformed": lambda: datasets.Dataset.from_dict(COLUMNS).with_transform(
        lambda rows: {"a": [torch.tensor(a) for a in rows["a"]], "word": rows["word"]}
    ),
}


def first(value, batch_size=2):
    return next(iter(loader_over(value, batch_size, shuffle=False)))


@pytest.mark.parametrize("kind", TABLES)
def test_a_batch_is_a_dict_of_columns(kind):
    batch = first(TABLES[kind]())
    assert batch["a"].tolist() == [1, 2]
    assert batch["a"].dtype == torch.int64
    assert batch["word"] == ["u", "v"]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "arrow in pieces", "hugging face"])
def test_rows_of_a_table_are_shuffled_as_rows_and_replayed_exactly(quiet, tiny, tmp_path, kind):
    class Seeing(tiny):
        batch_size = 2

        def __init__(self):
            super().__init__()
            self.rows = []

        def training_step(self, batch, batch_idx):
            self.rows += zip(batch["a"].tolist(), batch["word"], strict=True)
            return self.weight.sum()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 1 and batch_idx == 0:
                self.trainer.save_checkpoint(tmp_path / "one.ckpt")

    whole, rest = Seeing(), Seeing()
    quiet(max_epochs=2).fit(whole, TABLES[kind]())
    for epoch in whole.rows[:6], whole.rows[6:]:
        assert sorted(epoch) == list(zip(*COLUMNS.values(), strict=True))
    quiet(max_epochs=2).fit(rest, TABLES[kind](), ckpt_path=tmp_path / "one.ckpt")
    assert rest.rows == whole.rows[2:]


def test_a_table_and_a_column_belong_row_to_row():
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    rows, target = first((frame, pd.Series([3, 4])))
    assert (rows["a"].tolist(), target.tolist()) == ([1, 2], [3, 4])
    assert first((pa.array([1, 2]), pa.chunked_array([[3], [4]])))[1].tolist() == [3, 4]


def test_tables_in_a_list_are_several_data_sets():
    frame = pd.DataFrame(COLUMNS)
    data = L.LightningDataModule.from_datasets(val_dataset=[frame, frame], test_dataset={"x": frame}, batch_size=4)
    assert [len(loader) for loader in data.val_dataloader()] == [2, 2]
    assert len(data.test_dataloader()["x"]) == 2


def test_a_missing_number_is_nan_in_every_batch():
    frame = pd.DataFrame({"whole": pd.array([1, 2, None], dtype="Int64"), "full": pd.array([1, 2, 3], dtype="Int64")})
    table = pa.table({"whole": [1, 2, None], "yes": [True, False, None], "full": [1, 2, 3]})
    for batch in first(frame), first(table):
        assert (batch["whole"].dtype, batch["full"].dtype) == (torch.float64, torch.int64)
    assert first(table)["yes"].tolist() == [1, 0]
    assert first(table, 3)["whole"].isnan().tolist() == [False, False, True]


def test_what_is_no_number_stays_a_list():
    frame = pd.DataFrame({"kind": pd.Categorical(["x", "y"]), "day": pd.date_range("2020-01-01", periods=2)})
    batch = first(frame)
    assert batch["kind"] == ["x", "y"]
    assert isinstance(batch["day"], list)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(range(4)), 2)
    table = pa.table({"ragged": [[1], [2, 3]], "vector": vectors})
    assert first(table)["ragged"] == [[1], [2, 3]]
    assert first(table)["vector"].tolist() == [[0, 1], [2, 3]]


def test_what_arrow_lends_is_not_written_to():
    column = pa.array([1.0, 2.0])
    first(column).zero_()
    assert column.to_pylist() == [1, 2]


def test_a_single_row_of_a_table():
    assert Rows(pa.table(COLUMNS))[1] == {"a": torch.tensor(2), "word": "v"}


def test_columns_of_the_same_name_are_refused():
    with pytest.raises(MisconfigurationException, match="different names"):
        Rows(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_their_libraries_are_not_imported_for_others():
    code = """if True:
        import sys, numpy as np, leyden.core as L
        loader = L.LightningDataModule.from_datasets(np.zeros((4, 2)), batch_size=2).train_dataloader()
        assert len(list(loader)) == 2
        assert not {"pandas", "pyarrow", "datasets"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
