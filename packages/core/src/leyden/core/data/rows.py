# SPDX-License-Identifier: Apache-2.0
"""Arrays, tables and data sets as rows: what counts as one, and a loader over it.

The libraries of tables are never imported here: an object of theirs is known by its class, and brings what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.core.errors import MisconfigurationException

_TABLES = {("pandas", "DataFrame"), ("pyarrow", "Table"), ("pyarrow", "RecordBatch"), ("datasets", "Dataset")}
_ARRAYS = {("pandas", "Series"), ("pyarrow", "Array"), ("pyarrow", "ChunkedArray")}
_STREAM = ("datasets", "IterableDataset")
_NUMBERS = "biufc"


def _kinds(value: Any) -> set[tuple[str, str]]:
    """Return library and name of every class of a value."""
    return {(c.__module__.partition(".")[0], c.__name__) for c in type(value).__mro__}


def is_table(value: Any) -> bool:
    """Tell whether a value is a pandas or Arrow table or a data set of Hugging Face that has a length."""
    return bool(_kinds(value) & _TABLES)


def is_array(value: Any) -> bool:
    """Tell whether a value is a tensor, an array or a column that has rows."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim > 0
    return bool(_kinds(value) & _ARRAYS)


def are_columns(value: Any) -> bool:
    """Tell whether a tuple or dict holds arrays, in any nesting and perhaps beside tables, that belong row to row.

    A plain tuple of tensors whose rows are alike is none: `torch.Tensor.unbind`, ``split`` and ``chunk`` give batches.
    """
    if _are_alike(value):
        return False
    return _are_columns(value) and any(is_array(leaf) for leaf in _leaves(value))


def _are_alike(value: Any) -> bool:
    if type(value) is not tuple or not all(isinstance(part, Tensor) and part.ndim > 0 for part in value):
        return False
    return len({(part.dtype, part.shape[1:]) for part in value}) == 1


def _are_columns(value: Any) -> bool:
    if not isinstance(value, (tuple, Mapping)):
        return False
    parts = _parts(value)
    return bool(parts) and all(is_array(part) or is_table(part) or _are_columns(part) for part in parts)


def _parts(value: tuple[Any, ...] | Mapping[Any, Any]) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (tuple, Mapping)):
        return [leaf for part in _parts(value) for leaf in _leaves(part)]
    return [value]


def is_dataset(value: Any) -> bool:
    """Tell whether a value is a map-style data set, which does not say itself what iterating over it means."""
    if _STREAM in _kinds(value):
        return True
    return isinstance(value, Dataset) and not isinstance(value, (IterableDataset, Iterable))


def loader_over(value: Any, batch_size: int, shuffle: bool, num_workers: int = 0) -> DataLoader[Any] | None:
    """Return a loader over the rows of an array, a table, columns or a data set; None if the value is none of them.

    Args:
        value: The rows.
        batch_size: Rows in a batch.
        shuffle: Whether their order is drawn anew in each epoch; a stream keeps its own.
        num_workers: Processes that load data.

    Raises:
        MisconfigurationException: Columns differ in length or have the same name.
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": num_workers,
        # without workers the copy into pinned memory would be made by the process that has to train
        "pin_memory": num_workers > 0 and torch.cuda.is_available(),
    }
    kinds = _kinds(value)
    if _STREAM in kinds:
        return DataLoader(value.with_format("torch"), **options)
    transformed = ("datasets", "Dataset") in kinds and value.format["type"] == "custom"
    if is_dataset(value) or transformed:
        return DataLoader(value, shuffle=shuffle, **options)
    if is_array(value) or is_table(value) or are_columns(value):
        return DataLoader(Rows(value), shuffle=shuffle, collate_fn=_whole, **options)
    return None


def over_batches(batches: list[Any]) -> DataLoader[Any]:
    """Return a loader that gives the elements of a list as they are."""
    return DataLoader(batches, batch_size=None, collate_fn=_whole)  # type: ignore[arg-type]


def _whole(batch: Any) -> Any:
    return batch


class Rows(Dataset[Any]):
    """The rows of an array, a table or columns. A batch is taken at once, by the array of its indices.

    Numbers become tensors of their own type; everything else (text, dates, nested values) becomes a list. The rows of
    a table are dicts by column, those of a tuple or dict have its shape.

    Args:
        source: The array, the table, or a tuple or dict of such.

    Raises:
        MisconfigurationException: Columns differ in length or have the same name.
    """

    def __init__(self, source: Any) -> None:
        self.columns = _prepared(source)
        lengths = [len(leaf) for leaf in _leaves(self.columns)]
        if len(set(lengths)) > 1:
            raise MisconfigurationException(
                f"The arrays of a {type(source).__name__} are columns of the same rows, but their lengths are"
                f" {', '.join(map(str, lengths))}. A list of batches is given as a list."
            )
        self.length = lengths[0] if lengths else 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not -self.length <= index < self.length:
            raise IndexError(f"row {index} of {self.length}")
        return _first(self.__getitems__([index % self.length]))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return the batch of these rows."""
        return _take(self.columns, np.asarray(indices, dtype=np.int64))


def _prepared(source: Any) -> Any:
    """Return what rows are taken from: tensors, NumPy arrays, Arrow tables and data sets, in the shape of the rows."""
    if isinstance(source, (Mapping, tuple)):
        return _each(source, _prepared)
    if isinstance(source, np.ndarray):
        if source.dtype.names:
            return {name: _prepared(source[name]) for name in source.dtype.names}
        return source if source.dtype.isnative else source.astype(source.dtype.newbyteorder("="))
    kinds = _kinds(source)
    if ("pandas", "Series") in kinds:
        return _of_series(source)
    if ("pandas", "DataFrame") in kinds:
        if not source.columns.is_unique:
            raise MisconfigurationException(f"A table needs columns of different names; got {list(source.columns)}.")
        return {name: _of_series(series) for name, series in source.items()}
    if ("datasets", "Dataset") in kinds:
        view = source.format
        return source if view["type"] == "torch" else source.with_format("torch", columns=view["columns"])
    if ("pyarrow", "Table") in kinds or ("pyarrow", "RecordBatch") in kinds:
        return {name: _of_arrow(source.column(name)) for name in source.schema.names}
    return source if isinstance(source, Tensor) else _of_arrow(source)


def _of_series(series: Any) -> Any:
    """Return the values of a pandas column; a missing number is NaN."""
    plain = getattr(series.dtype, "numpy_dtype", None)
    if plain is None or plain.kind not in _NUMBERS:
        return series.to_numpy()
    return series.to_numpy("float64", na_value=np.nan) if series.hasnans else series.to_numpy(plain)


def _of_arrow(column: Any) -> Any:
    """Return a column of Arrow in which every missing number is NaN, whichever batch it falls into."""
    text = str(column.type)
    whole = text == "bool" or text.startswith(("int", "uint"))
    return column.cast("float64") if whole and column.null_count else column


def _take(columns: Any, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    if isinstance(columns, (dict, tuple)):
        return _each(columns, lambda column: _take(column, indices))
    if isinstance(columns, Tensor):
        return columns[torch.from_numpy(indices)]
    if isinstance(columns, np.ndarray):
        return _tensor(columns[indices])
    if hasattr(columns, "with_format"):
        return columns[indices.tolist()]
    return _tensor_of_arrow(columns.take(indices))


def _tensor(values: np.ndarray[Any, Any]) -> Any:
    return torch.from_numpy(values) if values.dtype.kind in _NUMBERS else list(values)


def _tensor_of_arrow(column: Any) -> Any:
    kind = str(column.type)
    if kind.startswith("fixed_size_list") and not column.null_count:
        inner = _tensor_of_arrow(column.combine_chunks().flatten() if hasattr(column, "chunks") else column.flatten())
        return inner.reshape(len(column), -1, *inner.shape[1:]) if isinstance(inner, Tensor) else column.to_pylist()
    if kind == "bool" or kind.startswith(("int", "uint", "float", "double", "halffloat")):
        # what Arrow lends without a copy must not be written to
        return torch.from_numpy(np.array(column.to_numpy(zero_copy_only=False)))
    return column.to_pylist()


def _first(batch: Any) -> Any:
    return _each(batch, _first) if isinstance(batch, (dict, tuple)) else batch[0]


def _each(columns: Mapping[Any, Any] | tuple[Any, ...], function: Callable[[Any], Any]) -> Any:
    """Return a dict, tuple or named tuple with a function applied to each of its parts."""
    if isinstance(columns, Mapping):
        return {key: function(part) for key, part in columns.items()}
    parts = [function(part) for part in columns]
    return type(columns)(*parts) if hasattr(columns, "_fields") else tuple(parts)
