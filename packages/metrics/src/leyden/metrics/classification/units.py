# SPDX-License-Identifier: Apache-2.0
"""The number that one sample adds to a counter, as often as there are samples."""

from __future__ import annotations

import torch
from torch import Tensor


class Units:
    """Gives a vector of ones: a single element seen many times, which takes no memory, kept while its length stays."""

    def __init__(self) -> None:
        self.last = torch.ones(0, dtype=torch.int64)

    def like(self, vector: Tensor) -> Tensor:
        """Return ones, int64, of the vector's length and device."""
        last = self.last
        if last.numel() != vector.numel() or last.device != vector.device:
            last = self.last = torch.ones((), dtype=torch.int64, device=vector.device).expand(vector.numel())
        return last
