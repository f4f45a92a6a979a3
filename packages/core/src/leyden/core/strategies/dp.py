# SPDX-License-Identifier: Apache-2.0
"""One process, several GPUs: `torch.nn.DataParallel`, for code of the 1.0 API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import MisconfigurationException
from leyden.core.precision.precision import Precision
from leyden.core.strategies.strategy import Strategy

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class DataParallelStrategy(Strategy):
    """One process that splits each batch over several GPUs. ``strategy="ddp"`` is faster; this is for old code.

    Each GPU runs the step on its part of the batch; ``x_step_end`` gets the outputs of all, stacked, and a loss without
    ``x_step_end`` is their mean.

    Args:
        accelerator: What knows the kind of device.
        parallel_devices: Two or more GPUs.
        precision_plugin: The number format.

    Raises:
        MisconfigurationException: There are fewer than two GPUs.
    """

    strategy_name = "dp"

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: Sequence[torch.device] | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        super().__init__(accelerator, precision_plugin)
        self._devices = list(parallel_devices or ())
        if self._devices:
            self.spread(self._devices)

    @property
    def parallel_devices(self) -> list[torch.device]:
        """The GPUs that take part."""
        return self._devices

    def spread(self, devices: Sequence[torch.device]) -> None:
        """Take several devices.

        Raises:
            MisconfigurationException: They are fewer than two, or no GPUs.
        """
        if len(devices) < 2 or any(device.type != "cuda" for device in devices):
            raise MisconfigurationException(
                f"`strategy='dp'` splits batches over two or more CUDA devices; got {[str(d) for d in devices]}. Use"
                " `strategy='ddp'`, which runs on any device."
            )
        self._devices, self.root_device = list(devices), devices[0]

    def step_method(self, name: str) -> Callable[..., Any]:
        """Return the step, run on every GPU with its part of the batch."""
        own = super().step_method(name)
        assert self.module is not None
        if name not in _STEPS:
            return own
        spread = self._spread(name)
        merge = not hasattr(self.module, f"{name}_end")

        def run(batch: Any, *args: Any) -> Any:
            output = spread(batch, *args)
            return _mean(output) if merge and name == "training_step" else output

        return run

    def forward_pass(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, run on every GPU with its part of the inputs."""
        return self._spread("forward" if call is self.module else call.__name__)

    def _spread(self, name: str) -> nn.DataParallel[_Step]:
        assert self.module is not None
        return nn.DataParallel(_Step(self.module, name), device_ids=self._devices)


class _Step(nn.Module):
    """A step of a module as a forward pass: DataParallel copies modules, and calls nothing else."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self.name = module, name

    def forward(self, *args: Any) -> Any:
        output = getattr(self.inner, self.name)(*args)
        # gathering stacks along the first dimension, which a number has not
        return _each(output, lambda value: value.unsqueeze(0) if value.dim() == 0 else value)


def _mean(output: Any) -> Any:
    """Return what several GPUs gave as one loss."""
    if isinstance(output, Tensor):
        return output.mean()
    if isinstance(output, dict) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"].mean()}
    return output


def _each(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, dict):
        return {key: _each(value, function) for key, value in output.items()}
    return output
