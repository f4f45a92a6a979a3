# SPDX-License-Identifier: Apache-2.0
"""The bolt ``digits_classifier``: a small convolutional network for 8 x 8 pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from leyden.bolts.augmentation import shift_and_rotate
from leyden.bolts.checks import check_integer, check_number
from leyden.bolts.declaration import bolt
from leyden.bolts.schedules import one_cycle
from leyden.core.module import LightningModule
from leyden.metrics import MetricCollection, MulticlassAccuracy, MulticlassF1Score

CLASSES = 10
INK = 16.0


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """How a `DigitsClassifier` is built and trained.

    Attributes:
        width: Channels of the first convolution; the others have twice as many.
        dropout: Probability that a feature is left out in training.
        lr: The learning rate at the top of the one-cycle schedule.
        epochs: Epochs over which the schedule runs; give the trainer the same ``max_epochs``.
        weight_decay: Weight decay of AdamW.
        shift: Training pictures are moved by up to this many pixels in each direction.
        rotate: Training pictures are turned by up to this many degrees.
        label_smoothing: Share of each label that the loss spreads over all digits.

    Raises:
        BoltValueError: A field has a value that is not allowed.

    Examples:
        >>> from leyden.bolts import DigitsConfig
        >>> DigitsConfig(dropout=1.5)
        Traceback (most recent call last):
        leyden.bolts.errors.BoltValueError: dropout must be a number in [0.0, 1.0); got 1.5
    """

    width: int = 32
    dropout: float = 0.3
    lr: float = 3e-3
    epochs: int = 40
    weight_decay: float = 0.01
    shift: float = 1.0
    rotate: float = 10.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_integer("width", self.width, 1)
        check_number("dropout", self.dropout, 0.0, 1.0)
        check_number("lr", self.lr, 0.0)
        check_integer("epochs", self.epochs, 1)
        check_number("weight_decay", self.weight_decay, 0.0)
        check_number("shift", self.shift, 0.0, 8.0)
        check_number("rotate", self.rotate, 0.0, 180.0)
        check_number("label_smoothing", self.label_smoothing, 0.0, 1.0)


@bolt(
    "digits_classifier",
    task="image classification",
    paper="LeCun et al., Gradient-based learning applied to document recognition, 1998, doi:10.1109/5.726791",
    licence="Apache-2.0",
    config=DigitsConfig,
)
class DigitsClassifier(LightningModule):
    """A convolutional classifier of 8 x 8 pictures of digits.

    Three convolutions with batch normalisation, two of them followed by pooling, and two linear layers. It takes the
    pixels as they were counted, 0 to 16, and scales them itself, so that an exported file takes raw pictures.

    It logs ``train_loss``, and for validation and test the same loss, the accuracy and the macro F1 score:
    ``val_loss``, ``val_accuracy``, ``val_f1``, ``test_loss`` and so on. Choose checkpoints by ``val_loss``: accuracy
    and F1 of the validation part reach 1 long before the model is at its best.

    Args:
        config: How it is built and trained; None takes the defaults.

    Examples:
        >>> import torch
        >>> from leyden.bolts import DigitsClassifier
        >>> model = DigitsClassifier().eval()
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    def __init__(self, config: DigitsConfig | None = None) -> None:
        super().__init__()
        self.config = config = DigitsConfig() if config is None else config
        self.save_hyperparameters()
        wide = 2 * config.width
        self.features = nn.Sequential(
            *_convolution(1, config.width),
            *_convolution(config.width, wide),
            nn.MaxPool2d(2),
            *_convolution(wide, wide),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(4 * wide, wide),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(wide, CLASSES),
        )
        self.val_metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(CLASSES, average="micro"),
                "f1": MulticlassF1Score(CLASSES, average="macro"),
            },
            prefix="val_",
        )
        self.test_metrics = self.val_metrics.clone(prefix="test_")
        self.example_input_array = torch.arange(2 * 64).remainder(17).float().view(2, 1, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(batch, 10)`` of pictures ``(batch, 1, 8, 8)`` with values from 0 to 16."""
        logits: Tensor = self.head(self.features(images / INK))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch of pictures that are moved and turned a little."""
        images, labels = batch
        images = shift_and_rotate(images, self.config.shift, self.config.rotate)
        loss = self._loss(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add a batch to the values of the validation."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Add a batch to the values of the test."""
        self._evaluate(batch, "test", self.test_metrics)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _evaluate(self, batch: Any, stage: str, metrics: MetricCollection) -> None:
        images, labels = batch
        logits = self(images)
        metrics.update(logits, labels)
        self.log(f"{stage}_loss", self._loss(logits, labels))
        self.log_dict(metrics, prog_bar=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the probabilities ``(batch, 10)`` of a batch of pictures."""
        probabilities: Tensor = self(batch).softmax(dim=-1)
        return probabilities

    def configure_optimizers(self) -> Any:
        """Return AdamW with the one-cycle schedule, which takes the rate of the middle of each epoch."""
        optimizer = AdamW(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)
        schedule = LambdaLR(optimizer, lambda epoch: one_cycle((epoch + 0.5) / self.config.epochs))
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def _convolution(channels: int, filters: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
