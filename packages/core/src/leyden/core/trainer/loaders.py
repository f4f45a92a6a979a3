# SPDX-License-Identifier: Apache-2.0
"""The loaders that a trainer works with, and how many batches and steps they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyden.core.callback import Callback
from leyden.core.callbacks.accumulation import GradientAccumulationScheduler
from leyden.core.data.feed import Feed
from leyden.core.ranks import rank_zero_info
from leyden.core.session import Session
from leyden.core.states import TrainerFn, TrainerState
from leyden.core.trainer.settings import Settings


class Loaders(Settings):
    """What is read off a trainer about its data."""

    state: TrainerState
    callbacks: list[Callback]
    _session: Session | None
    # per kind of loader, what the last evaluation or prediction took: the loaders, and how many batches of each
    _taken: dict[str, tuple[Any, list[float | int]]]

    @property
    def num_training_batches(self) -> float | int:
        """Training batches per epoch; infinite if unknown."""
        return self._session.train_batches() if self._session is not None else float("inf")

    @property
    def num_val_batches(self) -> list[float | int]:
        """Validation batches of each loader; infinite if unknown."""
        if self.state.fn == TrainerFn.VALIDATING:
            return self._count_of("val")
        return self._session.val_batches() if self._session is not None else []

    @property
    def num_sanity_val_batches(self) -> list[float | int]:
        """Validation batches of each loader that are tried before training."""
        return [min(self.num_sanity_val_steps, batches) for batches in self.num_val_batches]

    @property
    def num_test_batches(self) -> list[float | int]:
        """Test batches of each loader; infinite if unknown."""
        return self._count_of("test")

    @property
    def num_predict_batches(self) -> list[float | int]:
        """Prediction batches of each loader; infinite if unknown."""
        return self._count_of("predict")

    def _take(self, kind: str, feeds: Sequence[Feed]) -> None:
        """Remember what an evaluation or a prediction takes."""
        counts = [float("inf") if feed.length is None else feed.length for feed in feeds]
        self._taken[kind] = _collection([(feed.name, feed.given) for feed in feeds]), counts

    def _count_of(self, kind: str) -> list[float | int]:
        return self._taken[kind][1] if kind in self._taken else []

    @property
    def estimated_stepping_batches(self) -> float | int:
        """Optimiser steps that the whole fit will take; asks for the training loader.

        Infinite if nothing limits the epochs, and ``max_steps``, which may be -1, where the loader has no length.
        """
        epochs, steps = self.max_epochs, self.max_steps
        if epochs == -1 or epochs is None:
            return float("inf") if steps == -1 else steps
        if self._session is not None and self._session.train_feed is None and self._session.ended_with is None:
            rank_zero_info("Loading `train_dataloader` to estimate number of stepping batches.")
        batches = self.num_training_batches
        if batches == float("inf"):
            return steps
        schedule = next((c for c in self.callbacks if isinstance(c, GradientAccumulationScheduler)), None)
        if schedule is None:
            total = -(-int(batches) // self.accumulate_grad_batches) * max(epochs, 1)
        else:
            windows = (schedule.get_accumulate_grad_batches(epoch) for epoch in range(max(epochs, 1)))
            total = sum(-(-int(batches) // window) for window in windows)
        return total if steps == -1 else min(total, steps)

    @property
    def train_dataloader(self) -> Any:
        """The loader of training batches of this fit, or of the last."""
        if self._session is None:
            return None
        feed = self._session.train_feed
        return feed.given if feed is not None else self._session.ended_loaders[0]

    @property
    def val_dataloaders(self) -> Any:
        """The validation loaders of the running fit, or of the last ``validate``."""
        if self._session is None:
            return self._loaders_of("val")
        feeds = self._session.val_feeds
        loaders = [(feed.name, feed.given) for feed in feeds] if feeds else self._session.ended_loaders[1]
        return _collection(loaders) if loaders else self._loaders_of("val")

    @property
    def test_dataloaders(self) -> Any:
        """The loaders of the last ``test``."""
        return self._loaders_of("test")

    @property
    def predict_dataloaders(self) -> Any:
        """The loaders of the last ``predict``."""
        return self._loaders_of("predict")

    def _loaders_of(self, kind: str) -> Any:
        return self._taken[kind][0] if kind in self._taken else None

    @property
    def enable_validation(self) -> bool:
        """Whether the fit validates."""
        session = self._session
        if session is None or self.limit_val_batches == 0:
            return False
        return session.val_source is not None or bool(session.ended_with and session.ended_with[1])

    @property
    def val_check_batch(self) -> float | int | None:
        """Batches between two validations; infinite for the end of an epoch, None for a time or no validation."""
        rule = self._session.val_check if self._session is not None else None
        if rule is None or rule.every_seconds is not None:
            return None
        return float("inf") if rule.every_batches is None else rule.every_batches


def _collection(loaders: Sequence[tuple[str | None, Any]]) -> Any:
    """Return some loaders as they were given: one by itself, several as a list, or as a dict if they have names."""
    if not loaders:
        return None
    if loaders[0][0] is not None:
        return dict(loaders)
    return loaders[0][1] if len(loaders) == 1 else [loader for _, loader in loaders]
