# SPDX-License-Identifier: Apache-2.0
"""Data of a project in one reusable object: download, split, loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leyden.core.hparams import HyperparametersMixin
from leyden.core.transfer import move_to_device

if TYPE_CHECKING:
    from leyden.core.trainer import Trainer


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

    Example:
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
