# SPDX-License-Identifier: Apache-2.0
"""Activations that are computed again in the backward pass instead of being kept (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError

What = bool | Iterable[type[nn.Module]] | Callable[[nn.Module], bool]


class _Recomputed:
    """The forward pass of a module whose inner activations are not kept."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        own = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return own(*args, **kwargs)
        return checkpoint(own, *args, use_reentrant=False, **kwargs)


def recompute(module: nn.Module, what: What) -> list[nn.Module]:
    """Let parts of a module compute their activations again in the backward pass.

    Weights, names and results stay as they are, random numbers such as those of dropout included; memory is saved and
    time is spent. Nothing happens to a part that is inside another one of them, or for which this was done before.

    Args:
        module: The module, whose parts are changed.
        what: True for every block of a list of blocks (a child of `ModuleList` or `Sequential` that has children and
            parameters), classes, or a function that tells for a module. False does nothing.

    Returns:
        The parts that were changed, for `keep`.

    Raises:
        MisconfigurationException: No part is meant, or ``what`` is none of these.

    Examples:
        >>> import torch
        >>> from leyden.core.gradient_checkpointing import recompute
        >>> block = lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())
        >>> net = torch.nn.Sequential(block(), block(), torch.nn.Linear(4, 1))
        >>> len(recompute(net, True)), list(net.state_dict())[0]
        (2, '0.0.weight')
    """
    if what is False or what is None:
        return []
    chosen = _outermost(module, _chooser(module, what))
    if not chosen:
        raise MisconfigurationException(
            f"`activation_checkpointing={what!r}` names no part of {type(module).__name__}: give the classes of its"
            " blocks, or a function that tells for a module."
        )
    fresh = [part for part in chosen if not isinstance(part, _Recomputed)]
    for part in fresh:
        kind = type(part)
        # the class alone changes, so that parameters, names and hooks stay, and a copy of the module works
        part.__class__ = type(kind.__name__, (_Recomputed, kind), {"__module__": kind.__module__})
    return fresh


def keep(parts: Iterable[nn.Module]) -> None:
    """Undo `recompute`."""
    for part in parts:
        part.__class__ = type(part).__bases__[1]


def _chooser(module: nn.Module, what: Any) -> Callable[[nn.Module], bool]:
    if what is True:
        lists = (nn.ModuleList, nn.Sequential)
        blocks = {
            id(child)
            for parent in module.modules()
            if isinstance(parent, lists)
            for child in parent.children()
            if any(True for _ in child.children()) and any(True for _ in child.parameters())
        }
        return lambda part: id(part) in blocks
    if isinstance(what, type):
        what = (what,)
    if isinstance(what, Iterable):
        classes = tuple(what)
        if all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in classes):
            return lambda part: isinstance(part, classes)
    elif callable(what):
        choose: Callable[[nn.Module], bool] = what
        return choose
    raise MisconfigurationTypeError(
        "`activation_checkpointing` takes True, False, a list of module classes, or a function that tells for a module;"
        f" got {what!r}."
    )


def _outermost(module: nn.Module, choose: Callable[[nn.Module], bool]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        if choose(child):
            found.append(child)
        else:
            found += [part for part in _outermost(child, choose) if not any(part is known for known in found)]
    return found
