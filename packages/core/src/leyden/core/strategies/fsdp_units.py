# SPDX-License-Identifier: Apache-2.0
"""Which submodules are sharded, and gathered, as one unit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import nn

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError

# a set of classes, a number of parameters, or a function of a module (or of the three things that FSDP1 gives it)
Policy = Collection[type[nn.Module]] | int | Callable[..., bool]

_REPEATING = (nn.ModuleList, nn.Sequential)
# they have no forward pass before which their parameters could be gathered
_WITHOUT_FORWARD = (nn.ModuleList, nn.ModuleDict)


def checked_policy(policy: Any, argument: str) -> Policy | None:
    """Return a policy as it is given.

    Raises:
        MisconfigurationTypeError: It is none.
        MisconfigurationValueError: It is a number below 1.
    """
    if isinstance(policy, type) and issubclass(policy, nn.Module):
        return {policy}
    if isinstance(policy, int) and not isinstance(policy, bool):
        if policy < 1:
            raise MisconfigurationValueError(
                f"`{argument}` as a number of parameters must be at least 1; got {policy}."
            )
        return policy
    classes = isinstance(policy, Collection) and not isinstance(policy, (str, bytes))
    if classes and all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in policy):
        return set(policy)
    if policy is None or (callable(policy) and not isinstance(policy, type)):
        return policy
    raise MisconfigurationTypeError(
        f"`{argument}` takes a set of module classes, a function of a module, or a number of parameters above which a"
        f" module stands alone; got {policy!r}."
    )


def units_of(root: nn.Module, policy: Policy | None) -> list[nn.Module]:
    """Return the submodules that are units of their own, inner ones first; what is left belongs to the root.

    Args:
        root: The whole module.
        policy: What chooses; None chooses the blocks of every `ModuleList` and `Sequential`.
    """
    if policy is None:
        chosen = list(_blocks(root))
    else:
        chosen = [module for module in _chosen(root, policy) if not isinstance(module, _WITHOUT_FORWARD)]
    return [module for module in dict.fromkeys(chosen) if module is not root and _alone(module, root)]


def chosen_by(root: nn.Module, policy: Policy) -> list[nn.Module]:
    """Return every submodule that a policy chooses, whatever its parameters."""
    return [module for module in _chosen(root, policy) if module is not root]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, _REPEATING) and not isinstance(child, (*_REPEATING, nn.ModuleDict)):
            yield child
        else:
            yield from _blocks(child)


def _chosen(root: nn.Module, policy: Policy) -> list[nn.Module]:
    # children stand after their parents in `modules()`
    inner_first = list(root.modules())[::-1]
    if isinstance(policy, int):
        return _by_size(inner_first, policy)
    if not callable(policy):
        kinds = tuple(policy)
        return [module for module in inner_first if isinstance(module, kinds)]
    if "recurse" not in inspect.signature(policy).parameters:
        return [module for module in inner_first if policy(module)]
    return [
        module
        for module in inner_first
        if policy(module=module, recurse=False, nonwrapped_numel=sum(p.numel() for p in module.parameters()))
    ]


def _by_size(inner_first: list[nn.Module], least: int) -> list[nn.Module]:
    taken: set[int] = set()
    chosen = []
    for module in inner_first:
        free = {id(p): p.numel() for p in module.parameters() if id(p) not in taken}
        if sum(free.values()) > least and not isinstance(module, _WITHOUT_FORWARD):
            taken |= set(free)
            chosen.append(module)
    return chosen


def _alone(module: nn.Module, root: nn.Module) -> bool:
    """Tell whether a module has parameters, and shares none with the outside: tied ones stay with the root."""
    own = {id(parameter) for parameter in module.parameters()}
    inside = set(module.modules())
    outside = (p for other in root.modules() if other not in inside for p in other.parameters(recurse=False))
    return bool(own) and own.isdisjoint(map(id, outside))
