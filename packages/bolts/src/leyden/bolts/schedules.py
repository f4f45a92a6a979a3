# SPDX-License-Identifier: Apache-2.0
"""Learning rate schedules in closed form: the rate is a function of how much of the training is done."""

from __future__ import annotations

from math import cos, pi


def one_cycle(done: float, warm_up: float = 0.3, start: float = 0.04) -> float:
    """Return the one-cycle schedule's factor: up along half a cosine, then down to zero along another.

    Args:
        done: Share of the training that is done; beyond 1 the factor stays 0.
        warm_up: Share of the training in which the factor rises.
        start: The factor at the beginning.

    Returns:
        The factor for the largest learning rate, from 0 to 1.

    Reference:
        Smith and Topin, Super-Convergence, 2018, https://arxiv.org/abs/1708.07120

    Examples:
        >>> [round(one_cycle(done), 2) for done in (0.0, 0.15, 0.3, 0.65, 1.0, 1.5)]
        [0.04, 0.52, 1.0, 0.5, 0.0, 0.0]
    """
    if done < warm_up:
        return start + (1 - start) * (1 - cos(pi * done / warm_up)) / 2
    return (1 + cos(pi * (min(done, 1.0) - warm_up) / (1 - warm_up))) / 2
