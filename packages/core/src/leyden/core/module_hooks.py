# SPDX-License-Identifier: Apache-2.0
"""The points of a run at which a module may act."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.datamodule import DataHooks


class ModuleHooks(DataHooks):
    """Every hook of a module beside its steps. One that is not overridden costs nothing."""

    def on_fit_start(self) -> None:
        """Act when fit begins, with the model on its device and the optimisers made."""

    def on_fit_end(self) -> None:
        """Act when fit ends."""

    def on_train_start(self) -> None:
        """Act when training begins."""

    def on_train_end(self) -> None:
        """Act when training ends."""

    def on_train_epoch_start(self) -> None:
        """Act when a training epoch begins."""

    def on_train_epoch_end(self) -> None:
        """Act when a training epoch ends."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Act before ``training_step``. Return -1 to skip the rest of the epoch."""
        return None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Act after the optimisation step."""

    def on_validation_start(self) -> None:
        """Act when validation begins."""

    def on_validation_end(self) -> None:
        """Act when validation ends."""

    def on_validation_epoch_start(self) -> None:
        """Act when the pass over the validation data begins."""

    def on_validation_epoch_end(self) -> None:
        """Act when the pass over the validation data ends."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act before ``validation_step``."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act after ``validation_step``."""

    def on_validation_model_eval(self) -> None:
        """Put the module into evaluation mode for validation."""
        self.eval()  # type: ignore[attr-defined]

    def on_validation_model_train(self) -> None:
        """Put the module back after validation. Overriding it replaces the exact restoration of modes."""
        self.train()  # type: ignore[attr-defined]

    def on_validation_model_zero_grad(self) -> None:
        """Free the gradients before validation inside an epoch."""
        self.zero_grad()  # type: ignore[attr-defined]

    def on_test_start(self) -> None:
        """Act when testing begins."""

    def on_test_end(self) -> None:
        """Act when testing ends."""

    def on_test_epoch_start(self) -> None:
        """Act when the pass over the test data begins."""

    def on_test_epoch_end(self) -> None:
        """Act when the pass over the test data ends."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act before ``test_step``."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act after ``test_step``."""

    def on_test_model_eval(self) -> None:
        """Put the module into evaluation mode for testing."""
        self.eval()  # type: ignore[attr-defined]

    def on_test_model_train(self) -> None:
        """Put the module back after testing. Overriding it replaces the exact restoration of modes."""
        self.train()  # type: ignore[attr-defined]

    def on_predict_start(self) -> None:
        """Act when prediction begins."""

    def on_predict_end(self) -> None:
        """Act when prediction ends."""

    def on_predict_epoch_start(self) -> None:
        """Act when the pass over the prediction data begins."""

    def on_predict_epoch_end(self) -> None:
        """Act when the pass over the prediction data ends."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act before ``predict_step``."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Act after ``predict_step``."""

    def on_predict_model_eval(self) -> None:
        """Put the module into evaluation mode for prediction."""
        self.eval()  # type: ignore[attr-defined]

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Act before the gradients are cleared."""

    def on_before_backward(self, loss: Tensor) -> None:
        """Act before ``loss.backward()``."""

    def on_after_backward(self) -> None:
        """Act after ``loss.backward()``."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Act before the optimiser steps, with the whole gradient in place and not yet clipped."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to ``checkpoint`` before it is written."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read from ``checkpoint`` before its state is loaded."""
