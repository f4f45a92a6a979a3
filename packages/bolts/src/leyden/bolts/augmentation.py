# SPDX-License-Identifier: Apache-2.0
"""Augmentation of a whole batch of pictures at once, where the batch is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shift_and_rotate(images: Tensor, shift: float, rotate: float) -> Tensor:
    """Move and turn each picture by its own random amount; what comes in from outside is 0.

    Args:
        images: Pictures, ``(batch, channels, height, width)``, floating point.
        shift: Largest shift in each direction, in pixels.
        rotate: Largest rotation, in degrees.

    Returns:
        Pictures of the same shape.

    Examples:
        >>> import torch
        >>> batch = torch.rand(8, 1, 8, 8)
        >>> shift_and_rotate(batch, shift=1.0, rotate=10.0).shape
        torch.Size([8, 1, 8, 8])
    """
    count, _, height, width = images.shape
    draws = torch.rand(3, count, device=images.device, dtype=images.dtype) * 2 - 1
    angle = draws[0] * torch.pi * rotate / 180
    cos, sin = angle.cos(), angle.sin()
    # affine_grid measures in half pictures, so a turn of a picture that is not square needs its proportions
    right, down = draws[1] * shift * 2 / width, draws[2] * shift * 2 / height
    rows = torch.stack((cos, -sin * height / width, right, sin * width / height, cos, down), dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
