# SPDX-License-Identifier: Apache-2.0
"""The optimiser that user code steps: counts, fires the hooks, and otherwise is the optimiser itself."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.loops.compiled import compiled_step
from leyden.core.loops.window import rescale
from leyden.core.optimizers import needs_closure
from leyden.core.precision.precision import Precision
from leyden.core.session import Session


class LightningOptimizer:
    """What ``self.optimizers()`` returns, and what ``optimizer_step`` gets.

    ``step`` fires ``on_before_optimizer_step``, steps, and counts the step; everything else is the optimiser's own. An
    instance is also one of the wrapped optimiser's class, so that `isinstance` sees what the user made.

    Args:
        optimizer: The optimiser.
        session: The run; None for an optimiser outside a run, which steps and nothing else.
        after_closure: Called between the closure and the step; automatic optimisation clips gradients there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        session: Session | None = None,
        after_closure: Callable[[], None] | None = None,
    ) -> None:
        self._optimizer, self._session, self._after_closure = optimizer, session, after_closure
        own = type(self)
        self.__class__ = type(f"Lightning{type(optimizer).__name__}", (own, type(optimizer)), {})

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser itself."""
        return self._optimizer

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Step the optimiser.

        Args:
            closure: Computes the loss and the gradients, if that is still to be done.
            **kwargs: Further arguments of the optimiser's ``step``.

        Raises:
            MisconfigurationException: ``closure`` can not be called.
        """
        if closure is not None and not callable(closure):
            raise MisconfigurationException(
                f"When `optimizer.step(closure)` is called, the closure should be callable; got {closure!r}."
            )
        session, optimizer, after = self._session, self._optimizer, self._after_closure
        if session is None:
            return optimizer.step(closure=closure, **kwargs)
        hooks, precision = session.hooks, session.strategy.precision_plugin
        if precision.replaces("optimizer_step"):
            result = self._step_in(precision, closure, kwargs)
        elif closure is None and after is None and session.flags.compile and not kwargs:
            if hooks.table["on_before_optimizer_step"]:
                hooks.call("on_before_optimizer_step", optimizer)
            result = compiled_step(session, optimizer)()
        else:

            def whole() -> Any:
                loss = closure() if closure is not None else None
                if hooks.table["on_before_optimizer_step"]:
                    hooks.call("on_before_optimizer_step", optimizer)
                if after is not None:
                    after()
                return loss

            result = optimizer.step(closure=whole, **kwargs)
        session.open_optimizers.discard(id(optimizer))
        session.progress.global_step += 1
        return result

    def _step_in(self, precision: Precision, closure: Callable[[], Any] | None, kwargs: dict[str, Any]) -> Any:
        """Step as a number format wants it: the closure first, then gradients in their true size, then the step."""
        session, optimizer = self._session, self._optimizer
        assert session is not None
        if needs_closure(optimizer):
            raise MisconfigurationException(
                f"AMP and the LBFGS optimizer are not compatible: `{type(optimizer).__name__}` calls the model itself,"
                " and its gradients would have to be unscaled in between. Use `precision='bf16-mixed'`."
            )
        loss = closure() if closure is not None else None
        precision.unscale_gradients(optimizer)
        if session.hooks.table["on_before_optimizer_step"]:
            session.hooks.call("on_before_optimizer_step", optimizer)
        if self._after_closure is not None:
            self._after_closure()
        precision.optimizer_step(optimizer, **kwargs)
        return loss

    def accumulate(self, loss: Tensor, batches: int, clip: float | None = None, algorithm: str | None = None) -> bool:
        """Add the gradients of one batch to a window of several, and step when the window is full.

        For manual optimisation: it is `manual_backward`, the division by the window's size, clipping, the step and
        ``zero_grad`` in one line. The last window of an epoch counts as many batches as it has.

        Args:
            loss: The loss of this batch, a scalar.
            batches: Batches per window.
            clip: Largest norm (or absolute value) of the gradient; None does not clip.
            algorithm: ``"norm"`` or ``"value"``.

        Returns:
            Whether the optimiser stepped.

        Raises:
            MisconfigurationException: ``batches`` is less than 1, or there is no run.

        Examples:
            >>> import torch
            >>> import leyden.core as L
            >>> class Manual(L.LightningModule):
            ...     def __init__(self):
            ...         super().__init__()
            ...         self.automatic_optimization = False
            ...         self.layer = torch.nn.Linear(2, 1)
            ...     def training_step(self, batch, batch_idx):
            ...         self.optimizers().accumulate(self.layer(batch).mean(), batches=2, clip=1.0)
            ...     def configure_optimizers(self):
            ...         return torch.optim.SGD(self.parameters(), lr=0.1)
            >>> off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            >>> trainer = L.Trainer(max_epochs=1, enable_model_summary=False, **off)
            >>> trainer.fit(Manual(), [torch.ones(4, 2) for _ in range(5)])
            >>> trainer.global_step
            3
        """
        session = self._session
        if session is None or session.train_feed is None:
            raise MisconfigurationException("`accumulate` works inside `training_step` of a fit.")
        if batches < 1:
            raise MisconfigurationValueError(f"`batches` must be at least 1; got {batches!r}.")
        p, length = session.progress, session.train_feed.length
        place = p.batch % batches
        window = batches if length is None else min(batches, length - (p.batch - place))
        if place == 0:
            self.optimizer.zero_grad()
        session.backward(loss if window == 1 else loss / window)
        if place + 1 < batches and not p.is_last_batch:
            return False
        if place + 1 < window:
            rescale(self.optimizer, window / (place + 1))
        if clip is not None:
            session.module.clip_gradients(self.optimizer, clip, algorithm)
        self.step()
        return True

    @contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Generator[None, None, None]:
        """Let only this optimiser's parameters require gradients within the block.

        Args:
            sync_grad: Whether processes exchange gradients meanwhile; with one process there is nothing to exchange.
        """
        if self._session is None:
            raise MisconfigurationException("`toggle_model` works inside a fit: this optimizer is not part of one.")
        with self._session.module.toggled_optimizer(self.optimizer):
            yield

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def __repr__(self) -> str:
        return f"Lightning{self._optimizer!r}"
