# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints stay: the best by a score, or the newest where there is none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import MisconfigurationException


class Retention:
    """The files that are kept, with their scores. It knows paths and touches no file.

    Args:
        top_k: How many of the best stay; -1 for all, 0 for none.
        mode: ``"min"`` or ``"max"``: which scores are better.
        scored: Whether there is a score; without one, the newest file stays, or all.

    Attributes:
        best_k_models: Scores of the kept files by their paths.
        best_model_path: The best file, or the newest where there is no score.
        best_model_score: Its score.
        kth_best_model_path: The worst file that is kept.
        kth_value: Its score.
        current_score: The score of the file that was kept last.

    Raises:
        MisconfigurationException: The arguments contradict each other.

    Examples:
        >>> import torch
        >>> from leyden.core.callbacks.retention import Retention
        >>> kept = Retention(1, "min", scored=True)
        >>> kept.keep("a", torch.tensor(0.5))
        >>> kept.admits(torch.tensor(0.7)), kept.admits(torch.tensor(0.3)), kept.outgoing
        (False, True, 'a')
    """

    def __init__(self, top_k: int, mode: str, *, scored: bool) -> None:
        if mode not in ("min", "max"):
            raise MisconfigurationException(f"`mode` can be min, max but got {mode}")
        if top_k < -1:
            raise MisconfigurationException(f"Invalid value for save_top_k={top_k}. Must be >= -1")
        if not scored and top_k not in (-1, 0, 1):
            raise MisconfigurationException(
                f"ModelCheckpoint(save_top_k={top_k}, monitor=None) is not a valid configuration. No quantity for"
                " top_k to track."
            )
        self._top_k, self._mode = top_k, mode
        self.best_k_models: dict[str, Tensor] = {}
        self.best_model_path = ""
        self.best_model_score: Tensor | None = None
        self.kth_best_model_path = ""
        self.kth_value = self._worst()
        self.current_score: Tensor | None = None

    def _worst(self) -> Tensor:
        return torch.tensor(float("inf") if self._mode == "min" else -float("inf"))

    @property
    def outgoing(self) -> str | None:
        """The file whose place the next one takes."""
        return self.kth_best_model_path if len(self.best_k_models) == self._top_k else None

    def admits(self, score: Tensor) -> bool:
        """Tell whether a score is among the best."""
        if self._top_k == -1 or len(self.best_k_models) < self._top_k:
            return True
        worst = self.best_k_models[self.kth_best_model_path]
        return bool(score < worst if self._mode == "min" else score > worst)

    def keep(self, path: str, score: Tensor) -> None:
        """Take in a file that the score admits; `outgoing` is out."""
        if self.outgoing is not None:
            self.best_k_models.pop(self.outgoing)
        self.current_score = self._worst() if torch.isnan(score) else score.detach().cpu()
        self.best_k_models[path] = self.current_score
        worst, best = (max, min) if self._mode == "min" else (min, max)
        if self._top_k in (-1, len(self.best_k_models)):
            self.kth_best_model_path = worst(self.best_k_models, key=self._score_of)
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        self.best_model_path = best(self.best_k_models, key=self._score_of)
        self.best_model_score = self.best_k_models[self.best_model_path]

    def _score_of(self, path: str) -> float:
        return float(self.best_k_models[path])

    def keep_newest(self, path: str) -> str | None:
        """Take in a file without a score; returns the one whose place it takes."""
        before, self.best_model_path, self.current_score = self.best_model_path, path, None
        return before if self._top_k == 1 and before and before != path else None

    def state(self) -> dict[str, Any]:
        """Return what is kept."""
        return {
            "best_model_score": self.best_model_score,
            "best_model_path": self.best_model_path,
            "current_score": self.current_score,
            "best_k_models": dict(self.best_k_models),
            "kth_best_model_path": self.kth_best_model_path,
            "kth_value": self.kth_value,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, but for the path of the best file, which has a meaning in any folder."""
        self.best_model_score = state["best_model_score"]
        self.best_k_models = dict(state.get("best_k_models", {}))
        self.kth_best_model_path = state.get("kth_best_model_path", "")
        self.kth_value = state.get("kth_value", self.kth_value)
        self.current_score = state.get("current_score")
