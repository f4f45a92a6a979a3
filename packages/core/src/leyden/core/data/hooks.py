# SPDX-License-Identifier: Apache-2.0
"""The hooks about data that a module and a data module share."""

from __future__ import annotations

from typing import Any

from leyden.core.errors import MisconfigurationException
from leyden.core.transfer import move_to_device


def _not_implemented(hook: str) -> MisconfigurationException:
    return MisconfigurationException(f"`{hook}` must be implemented to be used with the Lightning Trainer")


class DataHooks:
    """The hooks about data, which a data module and a module share; a data module's win.

    Attributes:
        prepare_data_per_node: Whether one process of every machine prepares data, and not only one of all.
        allow_zero_length_dataloader_with_multiple_devices: Whether some of several processes may have no batch.
    """

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
        raise _not_implemented("train_dataloader")

    def val_dataloader(self) -> Any:
        """Return one or several loaders of validation batches."""
        raise _not_implemented("val_dataloader")

    def test_dataloader(self) -> Any:
        """Return one or several loaders of test batches."""
        raise _not_implemented("test_dataloader")

    def predict_dataloader(self) -> Any:
        """Return one or several loaders of batches to predict."""
        raise _not_implemented("predict_dataloader")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it moves to the device."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move a batch to ``device``; the default moves tensors in any nesting and all that has ``to(device)``."""
        return move_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the device."""
        return batch
