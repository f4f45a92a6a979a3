# SPDX-License-Identifier: Apache-2.0
"""What gradients are like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationValueError


def grad_norm(module: nn.Module, norm_type: float | int | str, group_separator: str = "/") -> dict[str, Tensor]:
    """Return the norm of every parameter's gradient, and of all of them as one vector.

    Args:
        module: Whose gradients; parameters without one are left out.
        norm_type: Which p-norm; ``"inf"`` for the largest absolute value.
        group_separator: Between the kind of norm and the parameter, so that loggers show the norms as a group.

    Returns:
        The norms, by names for `LightningModule.log_dict`.

    Raises:
        MisconfigurationValueError: ``norm_type`` is not positive.

    Examples:
        >>> import torch
        >>> from leyden.core.gradients import grad_norm
        >>> layer = torch.nn.Linear(1, 1)
        >>> (3 * layer.weight + 4 * layer.bias).sum().backward()
        >>> {name: float(norm) for name, norm in grad_norm(layer, 2).items()}
        {'grad_2.0_norm/weight': 3.0, 'grad_2.0_norm/bias': 4.0, 'grad_2.0_norm_total': 5.0}
    """
    p = float(norm_type)
    if p <= 0:
        raise MisconfigurationValueError(
            f"`norm_type` must be a positive number or 'inf' (infinity norm). Got {norm_type}"
        )
    norms = {
        f"grad_{p}_norm{group_separator}{name}": torch.linalg.vector_norm(parameter.grad.detach(), p)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    if norms:
        first = next(iter(norms.values()))
        norms[f"grad_{p}_norm_total"] = torch.linalg.vector_norm(
            torch.stack([norm.to(first.device) for norm in norms.values()]), p
        )
    return norms
