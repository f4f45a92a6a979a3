# SPDX-License-Identifier: Apache-2.0
"""The optical digits: 1,797 pictures of 8 x 8 pixels that come with scikit-learn."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from leyden.bolts.checks import check_integer, check_number
from leyden.bolts.errors import BoltError, BoltValueError
from leyden.core.datamodule import LightningDataModule
from leyden.core.errors import MissingExtraError

EVALUATION_BATCH = 256


class DigitsDataModule(LightningDataModule):
    """Handwritten digits, split by position, so that training and test are written by different hands.

    The pictures stand in the order in which they were collected, writer after writer; a random split would put the same
    hand on both sides and flatter every model. The first four fifths are for training, the rest is the test. Of the
    training part, the last pieces are for validation, for the same reason.

    Batches are ``(images, labels)``: float32 of shape ``(batch, 1, 8, 8)`` with the values 0 to 16, which count the ink
    in blocks of 4 x 4 pixels, and int64 of shape ``(batch,)``. `predict_dataloader` gives the pictures of the test.

    The data is read from the installed scikit-learn in ``setup`` and must have the `SHA256`; nothing is downloaded.

    Args:
        batch_size: Pictures per training batch.
        validation: Share of the training part that is for validation; more than 0 and less than 1.

    Attributes:
        train: The training pictures and labels, after ``setup``.
        val: Those for validation.
        test: Those for the test.

    Raises:
        BoltValueError: An argument has a value that is not allowed.

    Reference:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, https://doi.org/10.24432/C50P49

    Examples:
        >>> from leyden.bolts import DigitsDataModule
        >>> data = DigitsDataModule(batch_size=32)
        >>> data.setup("fit")
        >>> len(data.train), len(data.val), len(data.test)
        (1150, 287, 360)
    """

    # Of the pictures, one byte a pixel, and then of the labels, one byte each.
    SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset

    def __init__(self, batch_size: int = 64, validation: float = 0.2) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, 1)
        check_number("validation", validation, 0.0, 1.0)
        if validation == 0:
            raise BoltValueError("validation must be more than 0: without a part for it nothing tells when to stop")
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Read and split the data.

        Raises:
            MissingExtraError: scikit-learn is not installed.
            BoltError: The installed scikit-learn holds other data.
        """
        images, labels = read_digits(self.SHA256)
        known = len(images) * 4 // 5
        fitted = known - int(known * self.hparams.validation)
        parts = [(images[a:b], labels[a:b]) for a, b in ((0, fitted), (fitted, known), (known, len(images)))]
        self.train, self.val, self.test = (TensorDataset(*part) for part in parts)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, in a new order each epoch."""
        return DataLoader(self.train, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches for validation."""
        return DataLoader(self.val, batch_size=EVALUATION_BATCH)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the test."""
        return DataLoader(self.test, batch_size=EVALUATION_BATCH)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the pictures of the test without their labels."""
        return DataLoader(self.test.tensors[0], batch_size=EVALUATION_BATCH)  # type: ignore[arg-type]


def read_digits(sha256: str) -> tuple[Tensor, Tensor]:
    """Return all pictures ``(1797, 1, 8, 8)`` as float32 and all labels ``(1797,)`` as int64.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        BoltError: The data is not that of ``sha256``.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        raise MissingExtraError(
            "the digits come with scikit-learn, which is not installed: pip install 'leyden-bolts[tables]'",
            name="sklearn",
        ) from error
    found = load_digits()
    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.target)
    data = b"".join(part.to(torch.uint8).numpy().tobytes() for part in (images, labels))
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise BoltError(
            f"the digits of the installed scikit-learn are not those that the split is made for: their sha256 is"
            f" {digest}, not {sha256}. Install another version of scikit-learn"
        )
    return images.unsqueeze(1).float(), labels.long()
