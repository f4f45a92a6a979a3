# SPDX-License-Identifier: Apache-2.0
"""The optimiser that user code steps: counts, fires the hooks, and otherwise is the optimiser itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from leyden.core.session import Session


class LightningOptimizer:
    """What ``self.optimizers()`` returns, and what ``optimizer_step`` gets.

    ``step`` fires ``on_before_optimizer_step``, steps, and counts the step; everything else is the optimiser's own.

    Args:
        optimizer: The optimiser.
        session: The run.
        after_closure: Called between the closure and the step; automatic optimisation clips gradients there.
    """

    def __init__(self, optimizer: Optimizer, session: Session, after_closure: Callable[[], None] | None = None) -> None:
        self._optimizer, self._session, self._after_closure = optimizer, session, after_closure

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser itself."""
        return self._optimizer

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Step the optimiser.

        Args:
            closure: Computes the loss and the gradients, if that is still to be done.
            **kwargs: Further arguments of the optimiser's ``step``.
        """
        if closure is not None and not callable(closure):
            raise TypeError(f"closure must be callable; got {closure!r}.")
        session, optimizer, after = self._session, self._optimizer, self._after_closure

        def whole() -> Any:
            loss = closure() if closure is not None else None
            if session.hooks.table["on_before_optimizer_step"]:
                session.hooks.call("on_before_optimizer_step", optimizer)
            if after is not None:
                after()
            return loss

        result = optimizer.step(closure=whole, **kwargs)
        session.progress.global_step += 1
        return result

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def __repr__(self) -> str:
        return repr(self._optimizer)
