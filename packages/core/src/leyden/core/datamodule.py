# SPDX-License-Identifier: Apache-2.0
"""Data of a project in one reusable object: download, split, loaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from leyden.core.checkpoint import file
from leyden.core.checkpoint.model import arguments_for
from leyden.core.hparams import HyperparametersMixin
from leyden.core.transfer import move_to_device

if TYPE_CHECKING:
    from leyden.core.trainer import Trainer

Self = TypeVar("Self", bound="LightningDataModule")
Datasets: TypeAlias = "Dataset[Any] | Sequence[Any] | Mapping[str, Dataset[Any]]"
_PREFIX = "datamodule_"


class DataHooks:
    """The hooks about data, which a data module and a module share; a data module's win."""

    prepare_data_per_node: bool = True
    allow_zero_length_dataloader_with_multiple_devices: bool = False

    def prepare_data(self) -> None:
        """Download or build what all processes share. Called in one process; assign nothing to ``self`` here."""

    def setup(self, stage: str) -> None:
        """Make the data of ``stage`` (``fit``, ``validate``, ``test`` or ``predict``). Called in every process."""

    def teardown(self, stage: str) -> None:
        """Undo `setup`, also after an exception."""

    def train_dataloader(self) -> Any:
        """Return the loader of training batches."""

    def val_dataloader(self) -> Any:
        """Return one or several loaders of validation batches."""

    def test_dataloader(self) -> Any:
        """Return one or several loaders of test batches."""

    def predict_dataloader(self) -> Any:
        """Return one or several loaders of batches to predict."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it moves to the device."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to ``device``; the default moves tensors in any nesting and all that has ``to(device)``."""
        return move_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the device."""
        return batch


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
        """Build a data module around data sets.

        Args:
            train_dataset: The data set for training; it is shuffled if it has a length.
            val_dataset: The data set for validation; a list or dict of several gives as many loaders.
            test_dataset: As ``val_dataset``, for tests.
            predict_dataset: As ``val_dataset``, for prediction.
            batch_size: Samples in a batch.
            num_workers: Processes that load data.
            **datamodule_kwargs: Arguments of the class.

        Examples:
            >>> from leyden.core import LightningDataModule
            >>> data = LightningDataModule.from_datasets(val_dataset=list(range(10)), batch_size=4)
            >>> [len(batch) for batch in data.val_dataloader()]
            [4, 4, 2]
        """
        data = cls(**datamodule_kwargs)
        given = {"train": train_dataset, "val": val_dataset, "test": test_dataset, "predict": predict_dataset}
        for kind, datasets in given.items():
            if datasets is not None:
                make = partial(_loaders, datasets, kind == "train", batch_size=batch_size, num_workers=num_workers)
                setattr(data, f"{kind}_dataloader", make)
        return data

    @classmethod
    def load_from_checkpoint(
        cls: type[Self], checkpoint_path: str | Path, map_location: Any = None, trust: bool = False, **kwargs: Any
    ) -> Self:
        """Build the data module from a checkpoint: its stored hyper-parameters, then its state.

        Args:
            checkpoint_path: The file.
            map_location: Device for tensors, as in `torch.load`.
            trust: Whether a file that only code can rebuild may run that code. Only for files that you made.
            **kwargs: Arguments of ``__init__`` that override or complete the stored ones.

        Raises:
            CheckpointError: There is no such file, or an argument that could not be stored is missing.
        """
        path = Path(checkpoint_path)
        checkpoint = file.load(path, map_location, trust=trust)
        own = {k.removeprefix(_PREFIX): v for k, v in checkpoint.get("leyden", {}).items() if k.startswith(_PREFIX)}
        mine = {k.removeprefix(_PREFIX): v for k, v in checkpoint.items() if str(k).startswith(_PREFIX)}
        data = cls(**arguments_for(cls, {**mine, "leyden": own}, kwargs, path))
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

    def __getstate__(self) -> dict[str, Any]:
        # a copy or a pickle must not drag the running trainer along
        return {k: v for k, v in self.__dict__.items() if k != "trainer"}


def _loaders(datasets: Datasets, shuffle: bool, **options: Any) -> Any:
    if isinstance(datasets, Mapping):
        return {name: _loaders(dataset, shuffle, **options) for name, dataset in datasets.items()}
    if isinstance(datasets, (list, tuple)) and datasets and all(isinstance(d, Dataset) for d in datasets):
        return [_loaders(dataset, shuffle, **options) for dataset in datasets]
    shuffles = shuffle and not isinstance(datasets, IterableDataset)
    return DataLoader(datasets, shuffle=shuffles, pin_memory=torch.cuda.is_available(), **options)  # type: ignore[arg-type]
