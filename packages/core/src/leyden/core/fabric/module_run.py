# SPDX-License-Identifier: Apache-2.0
"""What a `LightningModule` sees of a run that the user's own loop does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from leyden.core.fabric.wrappers import _FabricModule, _FabricOptimizer

if TYPE_CHECKING:
    from leyden.core.fabric.fabric import Fabric


class ModuleRun:
    """Stands where a `LightningModule` looks for its trainer: ranks, loggers and collectives are Fabric's.

    Args:
        fabric: What the module was set up with.
        module: What came of the module.
        optimizers: Its optimisers, as they were set up.
    """

    current_epoch = global_step = 0
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None

    def __init__(self, fabric: Fabric, module: _FabricModule, optimizers: Sequence[_FabricOptimizer]) -> None:
        self.fabric = fabric
        self.strategy = module._strategy
        self.optimizers = self._step_optimizers = list(optimizers)
        # the module reaches its run through this name
        self._session = self

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.fabric.loggers[0] if self.fabric.loggers else None

    def log(self, name: str, value: Any, options: Sequence[Any], *_: Any) -> None:
        """Log a value at once; a metric gives what it has."""
        value = value.compute() if hasattr(value, "compute") else value
        if options[1] is not False:
            self.fabric.log_dict(value if isinstance(value, Mapping) else {name: value})

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run a backward pass."""
        self.fabric.backward(loss, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "fabric":
            raise AttributeError(name)
        if hasattr(self.fabric, name):
            return getattr(self.fabric, name)
        raise AttributeError(
            f"Your LightningModule code tried to access `self.trainer.{name}` but this attribute is not available when"
            " using Fabric with a LightningModule."
        )
