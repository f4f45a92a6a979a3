# SPDX-License-Identifier: Apache-2.0
"""WeightAveraging: a running average of the weights, which is validated and saved in their place."""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from leyden.core.callback import Callback
from leyden.core.errors import warn
from leyden.core.messages import tell
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer

_LOG = logging.getLogger(__name__)


class WeightAveraging(Callback):
    """Keeps an average of the weights beside them, by default the mean over all optimiser steps.

    Validation inside a fit runs with the averaged weights, and so does the model once training has ended. A checkpoint
    holds them as ``state_dict``, ready to be used, and the weights in training as ``current_model_state``, from which
    a resumed run goes on. Override `should_update` to choose the steps or epochs that are averaged.

    Args:
        device: Where the average is; where the model is if None.
        use_buffers: Whether buffers, such as the statistics of batch normalisation, are averaged too.
        **kwargs: More arguments of `torch.optim.swa_utils.AveragedModel`, such as ``avg_fn`` or ``multi_avg_fn``.

    Examples:
        >>> from leyden.core.callbacks import WeightAveraging
        >>> class LastEpochs(WeightAveraging):
        ...     def should_update(self, step_idx=None, epoch_idx=None):
        ...         return epoch_idx is not None and epoch_idx >= 10
        >>> LastEpochs().should_update(epoch_idx=9)
        False
    """

    def __init__(self, device: torch.device | str | int | None = None, use_buffers: bool = True, **kwargs: Any) -> None:
        self._device = torch.device(device) if isinstance(device, str) else device
        self._use_buffers, self._kwargs = use_buffers, kwargs
        self._average_model: AveragedModel | None = None
        self._swapped = False
        self._latest_update_step, self._latest_update_epoch = 0, -1

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Tell whether the average takes the weights in; asked after every optimiser step and every epoch.

        Args:
            step_idx: Number of the step that ended, from 0; None at the end of an epoch.
            epoch_idx: Number of the epoch that ended, from 0; None after a step.
        """
        return step_idx is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit with an average of nothing but the weights as they are."""
        if stage != TrainerFn.FITTING:
            return
        from torch.optim.swa_utils import AveragedModel

        from leyden.core.module import LightningModule

        if getattr(pl_module.configure_model, "__func__", None) is not LightningModule.configure_model:
            warn(
                "LY-A001",
                "You're using the WeightAveraging callback with a model that overrides the configure_model callback."
                " WeightAveraging doesn't support sharding model layers: the average holds all of them.",
            )
            pl_module.configure_model()
        device: Any = pl_module.device if self._device is None else self._device
        self._average_model = AveragedModel(pl_module, device=device, use_buffers=self._use_buffers, **self._kwargs)
        self._swapped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the average to where the model is by now."""
        if self._average_model is not None and self._device is None:
            self._average_model.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights in after an optimiser step."""
        steps = trainer.global_step
        if steps > self._latest_update_step and self.should_update(step_idx=steps - 1):
            self._average.update_parameters(pl_module)
            self._latest_update_step = steps

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the weights in after an epoch."""
        epoch = trainer.current_epoch
        if epoch > self._latest_update_epoch and self.should_update(epoch_idx=epoch):
            self._average.update_parameters(pl_module)
            self._latest_update_epoch = epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model with the averaged weights; those in training stay here, for a checkpoint to come."""
        self._swap(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model the averaged weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model its weights back."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the model its weights back if validation failed."""
        if self._swapped and trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return when the average was updated."""
        return {"latest_update_step": self._latest_update_step, "latest_update_epoch": self._latest_update_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over when the average was updated."""
        self._latest_update_step = state_dict["latest_update_step"]
        self._latest_update_epoch = state_dict.get("latest_update_epoch", -1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the averaged weights in the place of those in training."""
        if self._average_model is None:
            tell(
                _LOG,
                "You're using the WeightAveraging callback, but saving a checkpoint outside the 'fit' stage. The state"
                " of the WeightAveraging callback won't be saved in the checkpoint.",
            )
            return
        state = self._average_model.state_dict()
        beside = {name.removeprefix("module."): v for name, v in state.items() if name.startswith("module.")}
        own = checkpoint["state_dict"]
        average, current = (own, beside) if self._swapped else (beside, own)
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, current
        checkpoint["averaging_state"] = {name: v for name, v in state.items() if not name.startswith("module.")}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the average, and give the model the weights that were in training."""
        if trainer.state.fn != TrainerFn.FITTING or self._average_model is None:
            warn(
                "LY-A002",
                "You're using the WeightAveraging callback, but loading a checkpoint outside the 'fit' stage. The"
                " WeightAveraging state cannot be restored; the model has the averaged weights.",
            )
        elif "current_model_state" in checkpoint and "averaging_state" in checkpoint:
            average = {f"module.{name}": value for name, value in checkpoint["state_dict"].items()}
            self._average_model.load_state_dict(average | checkpoint["averaging_state"])
            pl_module.load_state_dict(checkpoint["current_model_state"])
        else:
            warn(
                "LY-A003",
                "The checkpoint was not created with WeightAveraging. Both the current and the average model will be"
                " initialized with state_dict.",
            )
            self._average_model.module.load_state_dict(checkpoint["state_dict"], strict=False)

    # -- weights -------------------------------------------------------------------------------------------------------

    @property
    def _average(self) -> AveragedModel:
        assert self._average_model is not None
        return self._average_model

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        average = self._average.module
        for beside, own in zip(
            chain(average.parameters(), average.buffers()),
            chain(pl_module.parameters(), pl_module.buffers()),
            strict=True,
        ):
            before = beside.data.clone()
            beside.data.copy_(own.data)
            own.data.copy_(before)
        self._swapped = not self._swapped


class EMAWeightAveraging(WeightAveraging):
    """Keeps an exponential moving average of the weights: each update moves it by ``1 - decay`` towards them.

    Args:
        device: Where the average is; where the model is if None.
        use_buffers: Whether buffers, such as the statistics of batch normalisation, are averaged too.
        decay: How much of the average stays at an update.
        update_every_n_steps: Optimiser steps between two updates.
        update_starting_at_step: Number of the first step, from 0, that is averaged; None for all.
        update_starting_at_epoch: Number of the first epoch, from 0, at whose end there is an update; None for none.
        **kwargs: More arguments of `torch.optim.swa_utils.AveragedModel`.

    Examples:
        >>> from leyden.core.callbacks import EMAWeightAveraging
        >>> callback = EMAWeightAveraging(decay=0.99, update_every_n_steps=10, update_starting_at_step=100)
        >>> [callback.should_update(step_idx=step) for step in (90, 100, 105, 110)]
        [False, True, False, True]
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        from torch.optim.swa_utils import get_ema_avg_fn

        average = get_ema_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(device, use_buffers, avg_fn=average, **kwargs)
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Tell whether the average takes the weights in."""
        if step_idx is not None:
            begun = self.update_starting_at_step is None or step_idx >= self.update_starting_at_step
            return begun and self.update_every_n_steps > 0 and step_idx % self.update_every_n_steps == 0
        first = self.update_starting_at_epoch
        return epoch_idx is not None and first is not None and epoch_idx >= first
