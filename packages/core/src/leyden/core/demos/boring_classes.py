# SPDX-License-Identifier: Apache-2.0
"""Models and data with nothing to learn: what tests, bug reports and first steps begin with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from leyden.core.datamodule import LightningDataModule
from leyden.core.module import LightningModule

FEATURES = 32
SAMPLES = 64


class RandomDataset(Dataset[Tensor]):
    """Rows of random numbers, the same at every pass.

    Args:
        size: Numbers in a row.
        length: How many rows.

    Examples:
        >>> from leyden.core.demos.boring_classes import RandomDataset
        >>> len(RandomDataset(32, 64)), RandomDataset(32, 64)[0].shape
        (64, torch.Size([32]))
    """

    def __init__(self, size: int, length: int) -> None:
        self.len = length
        self.data = torch.randn(length, size)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]

    def __len__(self) -> int:
        return self.len


class RandomDictDataset(Dataset[dict[str, Tensor]]):
    """As `RandomDataset`, with a dict for a sample: ``a`` is the row, ``b`` is ``a + 2``.

    Args:
        size: Numbers in a row.
        length: How many rows.
    """

    def __init__(self, size: int, length: int) -> None:
        self.len = length
        self.data = torch.randn(length, size)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.data[index]
        return {"a": row, "b": row + 2}

    def __len__(self) -> int:
        return self.len


class RandomIterableDataset(IterableDataset[Tensor]):
    """A stream of random rows, new at every pass, which does not know its length.

    Args:
        size: Numbers in a row.
        count: How many rows.
    """

    def __init__(self, size: int, count: int) -> None:
        self.count = count
        self.size = size

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.count):
            yield torch.randn(self.size)


class RandomIterableDatasetWithLen(RandomIterableDataset):
    """As `RandomIterableDataset`, and it knows its length."""

    def __len__(self) -> int:
        return self.count


class BoringModel(LightningModule):
    """One linear layer, with every step and loader that a run can ask for.

    Examples:
        >>> import leyden.core as L
        >>> from leyden.core.demos.boring_classes import BoringModel
        >>> trainer = L.Trainer(fast_dev_run=True, enable_progress_bar=False, enable_model_summary=False)
        >>> trainer.fit(BoringModel())
        >>> trainer.global_step
        1
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)

    def forward(self, x: Tensor) -> Any:
        """Apply the layer."""
        return self.layer(x)

    def loss(self, preds: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean squared distance to ``labels``, or to one."""
        return F.mse_loss(preds, torch.ones_like(preds) if labels is None else labels)

    def step(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(self(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss as ``loss``."""
        return {"loss": self.step(batch)}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss as ``x``."""
        return {"x": self.step(batch)}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss as ``y``."""
        return {"y": self.step(batch)}

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LRScheduler]]:
        """Return SGD, with a learning rate that falls at every epoch."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, step_size=1)]

    def train_dataloader(self) -> Any:
        """Return 64 batches of one row."""
        return DataLoader(RandomDataset(FEATURES, SAMPLES))

    def val_dataloader(self) -> Any:
        """Return 64 batches of one row."""
        return DataLoader(RandomDataset(FEATURES, SAMPLES))

    def test_dataloader(self) -> Any:
        """Return 64 batches of one row."""
        return DataLoader(RandomDataset(FEATURES, SAMPLES))

    def predict_dataloader(self) -> Any:
        """Return 64 batches of one row."""
        return DataLoader(RandomDataset(FEATURES, SAMPLES))


class ManualOptimBoringModel(BoringModel):
    """As `BoringModel`, with manual optimisation."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Take one step of the optimiser, and return the loss."""
        optimizer: Any = self.optimizers()
        loss = self.step(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class DemoModel(LightningModule):
    """One layer whose loss is the sum of its outputs.

    Args:
        out_dim: Outputs of the layer.
        learning_rate: Of Adam.
    """

    def __init__(self, out_dim: int = 10, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.l1 = nn.Linear(FEATURES, out_dim)
        self.learning_rate = learning_rate

    def forward(self, x: Tensor) -> Any:
        """Apply the layer and cut off below zero."""
        return torch.relu(self.l1(x.view(x.size(0), -1)))

    def training_step(self, batch: Any, batch_nb: int) -> Any:
        """Return the sum of the outputs."""
        return self(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class Net(nn.Module):
    """A small convolutional network for images of 28 by 28 in ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of the class probabilities."""
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.dropout1(F.max_pool2d(x, 2)).flatten(1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


class BoringDataModule(LightningDataModule):
    """Four parts of one random data set, one for each verb."""

    def __init__(self) -> None:
        super().__init__()
        self.random_full = RandomDataset(FEATURES, SAMPLES * 4)

    def _part(self, index: int) -> Subset[Tensor]:
        return Subset(self.random_full, range(SAMPLES * index, SAMPLES * (index + 1)))

    def setup(self, stage: str) -> None:
        """Cut out what ``stage`` needs."""
        if stage == "fit":
            self.random_train = self._part(0)
        if stage in ("fit", "validate"):
            self.random_val = self._part(1)
        if stage == "test":
            self.random_test = self._part(2)
        if stage == "predict":
            self.random_predict = self._part(3)

    def train_dataloader(self) -> Any:
        """Return the first part."""
        return DataLoader(self.random_train)

    def val_dataloader(self) -> Any:
        """Return the second part."""
        return DataLoader(self.random_val)

    def test_dataloader(self) -> Any:
        """Return the third part."""
        return DataLoader(self.random_test)

    def predict_dataloader(self) -> Any:
        """Return the fourth part."""
        return DataLoader(self.random_predict)


class BoringDataModuleNoLen(LightningDataModule):
    """Random streams without a length, one for each verb."""

    def setup(self, stage: str) -> None:
        """Make what ``stage`` needs."""
        if stage == "fit":
            self.random_train = RandomIterableDataset(FEATURES, 512)
        if stage in ("fit", "validate"):
            self.random_val = RandomIterableDataset(FEATURES, 128)
        if stage == "test":
            self.random_test = RandomIterableDataset(FEATURES, 256)
        if stage == "predict":
            self.random_predict = RandomIterableDataset(FEATURES, 64)

    def train_dataloader(self) -> Any:
        """Return 512 batches of one row."""
        return DataLoader(self.random_train)

    def val_dataloader(self) -> Any:
        """Return 128 batches of one row."""
        return DataLoader(self.random_val)

    def test_dataloader(self) -> Any:
        """Return 256 batches of one row."""
        return DataLoader(self.random_test)

    def predict_dataloader(self) -> Any:
        """Return 64 batches of one row."""
        return DataLoader(self.random_predict)


class IterableBoringDataModule(LightningDataModule):
    """Two loaders for each verb: one with a length and one without."""

    def setup(self, stage: str) -> None:
        """Make what ``stage`` needs."""
        if stage == "fit":
            self.train_datasets = _sized_and_unsized(16)
        if stage in ("fit", "validate"):
            self.val_datasets = _sized_and_unsized(32)
        if stage == "test":
            self.test_datasets = _sized_and_unsized(64)
        if stage == "predict":
            self.predict_datasets = _sized_and_unsized(128)

    def train_dataloader(self) -> Any:
        """Return two loaders of 16 batches."""
        return [DataLoader(d) for d in self.train_datasets]

    def val_dataloader(self) -> Any:
        """Return two loaders of 32 batches."""
        return [DataLoader(d) for d in self.val_datasets]

    def test_dataloader(self) -> Any:
        """Return two loaders of 64 batches."""
        return [DataLoader(d) for d in self.test_datasets]

    def predict_dataloader(self) -> Any:
        """Return two loaders of 128 batches."""
        return [DataLoader(d) for d in self.predict_datasets]


def _sized_and_unsized(length: int) -> list[Dataset[Tensor]]:
    return [RandomDataset(4, length), RandomIterableDataset(4, length)]
