# SPDX-License-Identifier: Apache-2.0
"""Data of a project in one reusable object: download, split, loaders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.core.checkpoint.model import arguments_for, on_class_only, read, use_hparams_file
from leyden.core.data.describe import describe
from leyden.core.data.hooks import DataHooks as DataHooks
from leyden.core.data.rows import is_dataset, is_table, loader_over
from leyden.core.hparams import HyperparametersMixin

if TYPE_CHECKING:
    from leyden.core.trainer import Trainer

Self = TypeVar("Self", bound="LightningDataModule")
Datasets: TypeAlias = Any  # a data set, rows of any kind, or a list or dict of such
_PREFIX = "datamodule_"


class LightningDataModule(DataHooks, HyperparametersMixin):
    """Loaders, splits and downloads of one data set.

    Examples:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from leyden.core import LightningDataModule
        >>> class Points(LightningDataModule):
        ...     def setup(self, stage):
        ...         self.points = TensorDataset(torch.randn(64, 2))
        ...     def train_dataloader(self):
        ...         return DataLoader(self.points, batch_size=8, shuffle=True)
        >>> data = Points(); data.setup("fit"); len(data.train_dataloader())
        8
    """

    CHECKPOINT_HYPER_PARAMS_KEY = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "datamodule_hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "datamodule_hparams_type"
    name: str | None = None
    trainer: Trainer | None = None

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_datasets(
        cls: type[Self],
        train_dataset: Datasets | None = None,
        val_dataset: Datasets | None = None,
        test_dataset: Datasets | None = None,
        predict_dataset: Datasets | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **datamodule_kwargs: Any,
    ) -> Self:
        """Build a data module around data sets, arrays or tables.

        Args:
            train_dataset: The data set for training; it is shuffled if it has a length. An array, a pandas or Arrow
                table or a data set of Hugging Face is one too, and a tuple or dict of arrays holds the columns of one.
            val_dataset: The data set for validation; a list or dict of several gives as many loaders.
            test_dataset: As ``val_dataset``, for tests.
            predict_dataset: As ``val_dataset``, for prediction.
            batch_size: Samples in a batch.
            num_workers: Processes that load data.
            **datamodule_kwargs: Arguments of the class; ``batch_size`` and ``num_workers`` too, if it takes them.

        Examples:
            >>> from leyden.core import LightningDataModule
            >>> data = LightningDataModule.from_datasets(val_dataset=list(range(10)), batch_size=4)
            >>> [len(batch) for batch in data.val_dataloader()]
            [4, 4, 2]
        """
        parameters = signature(cls.__init__).parameters.values()
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
            if takes_all or any(parameter.name == name for parameter in parameters):
                datamodule_kwargs.setdefault(name, value)
        data = cls(**datamodule_kwargs)
        given = {"train": train_dataset, "val": val_dataset, "test": test_dataset, "predict": predict_dataset}
        for kind, datasets in given.items():
            if datasets is not None:
                make = partial(_loaders, datasets, kind == "train", batch_size=batch_size, num_workers=num_workers)
                setattr(data, f"{kind}_dataloader", make)
        return data

    @on_class_only
    @classmethod
    def load_from_checkpoint(
        cls: type[Self],
        checkpoint_path: str | os.PathLike[str] | IO[bytes],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Build the data module from a checkpoint: its stored hyper-parameters, then its state.

        Args:
            checkpoint_path: The file: its path, or open for reading.
            map_location: Device for tensors, as in `torch.load`.
            hparams_file: A ``.yaml`` or ``.csv`` file whose hyper-parameters take the place of the stored ones.
            weights_only: False means ``trust=True``.
            trust: Whether a file that only code can rebuild may run that code. Only for files that you made.
            **kwargs: Arguments of ``__init__`` that override or complete the stored ones.

        Raises:
            CheckpointError: There is no such file, or an argument that could not be stored is missing.
        """
        checkpoint = read(checkpoint_path, map_location, trust=trust or weights_only is False)
        own = {k.removeprefix(_PREFIX): v for k, v in checkpoint.get("leyden", {}).items() if k.startswith(_PREFIX)}
        mine = {k.removeprefix(_PREFIX): v for k, v in checkpoint.items() if str(k).startswith(_PREFIX)}
        mine["leyden"] = own
        if hparams_file is not None:
            use_hparams_file(mine, hparams_file)
        data = cls(**arguments_for(cls, mine, kwargs, checkpoint_path))
        if cls.__qualname__ in checkpoint:
            data.load_state_dict(checkpoint[cls.__qualname__])
        return data

    def state_dict(self) -> dict[str, Any]:
        """Return what the data must know when the run is resumed."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""

    def on_exception(self, exception: BaseException) -> None:
        """Learn that the run is ending by an exception."""

    def __str__(self) -> str:
        """Return what is known of every kind of data, loaders and sizes, without preparing any."""
        return describe(self)

    def __getstate__(self) -> dict[str, Any]:
        # a copy or a pickle must not drag the running trainer along
        return {k: v for k, v in self.__dict__.items() if k != "trainer"}


def _loaders(datasets: Any, shuffle: bool, **options: Any) -> Any:
    rows = loader_over(datasets, shuffle=shuffle, **options)
    if rows is not None:
        return rows
    if isinstance(datasets, Mapping):
        return {name: _loaders(dataset, shuffle, **options) for name, dataset in datasets.items()}
    if isinstance(datasets, (list, tuple)) and datasets and all(_is_data(part) for part in datasets):
        return [_loaders(dataset, shuffle, **options) for dataset in datasets]
    pin = options["num_workers"] > 0 and torch.cuda.is_available()
    return DataLoader(
        datasets, shuffle=shuffle and not isinstance(datasets, IterableDataset), pin_memory=pin, **options
    )


def _is_data(value: Any) -> bool:
    return isinstance(value, Dataset) or is_dataset(value) or is_table(value)
