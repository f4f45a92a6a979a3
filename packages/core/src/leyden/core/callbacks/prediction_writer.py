# SPDX-License-Identifier: Apache-2.0
"""BasePredictionWriter: predictions go to files instead of memory."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationException
from leyden.core.states import TrainerFn
from leyden.core.transfer import move_to_device

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class WriteInterval(StrEnum):
    """When predictions are written."""

    BATCH = "batch"
    EPOCH = "epoch"
    BATCH_AND_EPOCH = "batch_and_epoch"

    @property
    def on_batch(self) -> bool:
        """Whether each batch is written."""
        return self in (WriteInterval.BATCH, WriteInterval.BATCH_AND_EPOCH)

    @property
    def on_epoch(self) -> bool:
        """Whether everything is written at the end."""
        return self in (WriteInterval.EPOCH, WriteInterval.BATCH_AND_EPOCH)


class BasePredictionWriter(Callback):
    """Base class of callbacks that write predictions: override `write_on_batch_end`, `write_on_epoch_end`, or both.

    With ``"batch"`` nothing is kept, so that predictions of any size can be written when
    ``trainer.predict(..., return_predictions=False)`` keeps nothing either.

    Args:
        write_interval: ``"batch"``, ``"epoch"`` or ``"batch_and_epoch"``.

    Raises:
        MisconfigurationException: ``write_interval`` is unknown.

    Examples:
        >>> import torch
        >>> from leyden.core.callbacks import BasePredictionWriter
        >>> class ToFiles(BasePredictionWriter):
        ...     def write_on_batch_end(
        ...         self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx
        ...     ):
        ...         torch.save(prediction, f"{dataloader_idx}-{batch_idx}.pt")
        >>> ToFiles("batch").interval.on_epoch
        False
    """

    def __init__(self, write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "batch") -> None:
        if write_interval not in set(WriteInterval):
            raise MisconfigurationException(
                f"`write_interval` should be one of {[str(i) for i in WriteInterval]}; got {write_interval!r}."
            )
        self.interval = WriteInterval(write_interval)
        self.wants_batch_indices = True
        self._kept: dict[int, list[Any]] = {}

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the predictions of one batch.

        Args:
            trainer: The trainer.
            pl_module: The module.
            prediction: What ``predict_step`` returned.
            batch_indices: Places of the samples in their data set, or None where they are not known.
            batch: The batch.
            batch_idx: Number of the batch in its loader.
            dataloader_idx: Number of the loader.
        """

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any] | None,
    ) -> None:
        """Write all predictions.

        Args:
            trainer: The trainer.
            pl_module: The module.
            predictions: What ``predict_step`` returned, batch by batch, on the CPU; one such list per loader if there
                are several.
            batch_indices: Places of the samples in their data set: a list per loader with a list per batch.
        """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to predict for nothing.

        Raises:
            MisconfigurationException: The method that the interval needs is not overridden.
        """
        if stage != TrainerFn.PREDICTING:
            return
        for due, name in (
            (self.interval.on_batch, "write_on_batch_end"),
            (self.interval.on_epoch, "write_on_epoch_end"),
        ):
            own = getattr(getattr(self, name), "__func__", None) is not getattr(BasePredictionWriter, name)
            if due and not own:
                raise MisconfigurationException(
                    f"`{type(self).__qualname__}(write_interval={str(self.interval)!r})` writes nothing: override"
                    f" `{name}`, or choose another `write_interval`."
                )

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing kept."""
        self._kept = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch, and keep it for the end if everything is written there."""
        if self.interval.on_batch:
            indices = trainer.predict_loop.current_batch_indices or None
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, batch_idx, dataloader_idx)
        if self.interval.on_epoch:
            self._kept.setdefault(dataloader_idx, []).append(move_to_device(outputs, "cpu"))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything, and let go of it."""
        if not self.interval.on_epoch:
            return
        kept, self._kept = self._kept, {}
        loaders = [kept.get(index, []) for index in range(max(kept, default=0) + 1)]
        indices = trainer.predict_loop.epoch_batch_indices
        self.write_on_epoch_end(trainer, pl_module, loaders[0] if len(loaders) == 1 else loaders, indices)
