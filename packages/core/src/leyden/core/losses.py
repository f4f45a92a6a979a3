# SPDX-License-Identifier: Apache-2.0
"""Losses that are no numbers: noticed before they reach the weights where that is free, and soon after elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor

from leyden.core.errors import NonFiniteError, warn
from leyden.core.progress import Progress
from leyden.core.strategies.strategy import Strategy

OnNonfinite = Literal["raise", "skip", "rollback", "ignore"]


class LossWatch:
    """Looks at the losses of a training.

    On the CPU a loss is read before its backward pass. Elsewhere reading it would let the host wait for the device, so
    it goes into a sum on the device, in which an infinite one stays; the sum is read when rows are logged, when an
    epoch ends and before anything is saved.

    Args:
        policy: ``"raise"``, ``"skip"`` to leave out what can not be trained on, or ``"ignore"``.
        strategy: What knows the device and the processes.
        progress: What counts the batches.
    """

    def __init__(self, policy: OnNonfinite, strategy: Strategy, progress: Progress) -> None:
        self._policy, self._strategy, self._progress = policy, strategy, progress
        self._sum: Tensor | None = None
        self._since = 0
        self._told = False

    def look(self) -> Callable[[Tensor], bool] | None:
        """Return what is shown every loss, and tells whether to leave its batch out; None if nobody looks."""
        scaled = getattr(self._strategy.precision_plugin, "scaler", None) is not None
        # what scales the loss leaves out steps that are too large, and goes on with a smaller scale
        if self._policy == "ignore" or (self._policy == "raise" and scaled):
            return None
        if self._policy == "skip":
            return self._skips
        return self._raises if self._strategy.root_device.type == "cpu" else self._notes

    def _raises(self, loss: Tensor) -> bool:
        if not isfinite(loss.item()):
            raise NonFiniteError(
                f"the loss of {self._where()} is {loss.item()}. The weights are as before it. Look at the batch and the"
                " learning rate, clip gradients, find the operation with `Trainer(detect_anomaly=True)`, or train on"
                " without such batches with `Trainer(on_nonfinite='skip')`."
            )
        return False

    def _notes(self, loss: Tensor) -> bool:
        loss = loss.detach()
        if self._sum is None:
            self._sum, self._since = torch.zeros_like(loss), self._progress.batches
        # nothing is added but what is no number: 0 times infinity is none
        self._sum.add_(loss, alpha=0.0)
        return False

    def _skips(self, loss: Tensor) -> bool:
        return self._left_out(not isfinite(loss.item()), f"a loss of {loss.item()}")

    def skips_step(self, parameters: Iterable[Tensor]) -> bool:
        """Tell, under ``"skip"``, whether a step is left out because of its gradients."""
        if self._policy != "skip":
            return False
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        return self._left_out(not isfinite(float(total)), "gradients that are not finite")

    def _left_out(self, bad: bool, what: str) -> bool:
        if self._strategy.world_size > 1:
            bad = self._strategy.any_decision(bad)
        if bad and not self._told:
            self._told = True
            warn(
                "LY-T020",
                f"`on_nonfinite='skip'` leaves out {self._where()}: {what}, on this process or another. More of"
                " them are left out without a word.",
            )
        return bad

    def _where(self) -> str:
        return f"batch {self._progress.batch} of epoch {self._progress.epoch}"

    def settle(self, module: torch.nn.Module | None = None) -> None:
        """Read what was noted; with a module, look at its parameters as well.

        Raises:
            NonFiniteError: A loss, or a parameter that trains, was infinite or no number, and that is an error.
        """
        if self._policy != "raise":
            return
        now, since = self._progress.batches, self._since
        if self._sum is not None:
            bad = not isfinite(self._sum.item())
            self._sum = None
            if bad:
                raise NonFiniteError(
                    f"the loss was infinite or no number in one of the batches {since} to {now} of the run, and the"
                    " weights may have taken that over. Go on from a checkpoint of before with a smaller learning rate"
                    " or clipped gradients, or train with `Trainer(on_nonfinite='skip')`."
                )
        if module is None:
            return
        checks = [(name, torch.isfinite(values).all()) for name, values in _trained(module)]
        bad = bool(checks) and not bool(torch.stack([check.cpu() for _, check in checks]).all())
        if self._strategy.any_decision(bad) if self._strategy.sharded else bad:
            found = next((name for name, check in checks if not bool(check)), "of another process")
            raise NonFiniteError(
                f"the parameter {found!r} is infinite or no number after batch {now} of the run, though no loss was:"
                " the last steps were too large. Go on from a checkpoint of before with a smaller learning rate or"
                " clipped gradients."
            )


def _trained(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what this process holds of the parameters that train."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            held: Any = parameter.detach()
            yield name, held.to_local() if hasattr(held, "to_local") else held
