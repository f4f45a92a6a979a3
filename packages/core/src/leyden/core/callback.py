# SPDX-License-Identifier: Apache-2.0
"""The base class of callbacks: every point of a run at which code that is not the model's may act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer import Trainer


class Callback:
    """Code that acts at named points of a run, kept apart from the model.

    Override the hooks that are needed; a hook that nobody overrides costs nothing. Every hook gets the trainer and the
    module first. A callback that keeps state over a run returns it from `state_dict`.

    Examples:
        >>> from leyden.core import Callback
        >>> class Announce(Callback):
        ...     def on_train_start(self, trainer, pl_module):
        ...         print("training", type(pl_module).__name__)
    """

    def __getstate__(self) -> dict[str, Any]:
        # the run lends `log` and `log_dict`, which a copy or a pickle must not take along with the whole model
        return {k: v for k, v in self.__dict__.items() if k not in ("log", "log_dict")}

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint; two instances in one run need different keys."""
        return type(self).__qualname__

    def _generate_state_key(self, **kwargs: Any) -> str:
        """Return a key made of the class name and the arguments that tell instances apart."""
        return f"{type(self).__qualname__}{kwargs!r}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin ``stage``: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End ``stage``, also after an exception."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when fit begins, with the model on its device and the optimisers made."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when fit ends."""

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act before the validation batches that are run ahead of training."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act after the validation batches that are run ahead of training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when training begins."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when training ends."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when a training epoch begins."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when a training epoch ends. Callbacks that monitor a value are called after the module."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Act before ``training_step``, with the batch on its device."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act after the optimisation step. ``outputs`` holds the unscaled ``"loss"`` and what the step returned."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when validation begins."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when validation ends, with its values in ``trainer.callback_metrics``."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the validation data begins."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the validation data ends."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before ``validation_step``."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Act after ``validation_step``."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when testing begins."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when testing ends."""

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the test data begins."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the test data ends."""

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before ``test_step``."""

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Act after ``test_step``."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when prediction begins."""

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when prediction ends."""

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the prediction data begins."""

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act when the pass over the prediction data ends."""

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before ``predict_step``."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Act after ``predict_step``."""

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Act before the gradients are cleared."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Act before ``loss.backward()``."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act after ``loss.backward()``."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Act before the optimiser steps, with the whole gradient in place and not yet clipped."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Learn that the run is ending by an exception."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must know when the run is resumed: tensors and plain data."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add to ``checkpoint`` before it is written."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read from ``checkpoint`` after it was loaded."""
