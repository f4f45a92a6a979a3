# SPDX-License-Identifier: Apache-2.0
"""States of what a loop of the user's own has, in the files that the Trainer writes too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from leyden.core.checkpoint import file, sharded
from leyden.core.errors import (
    CheckpointError,
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    NotYetSupported,
)
from leyden.core.fabric.wrappers import _FabricModule, _FabricOptimizer, compiled_from, unwrapped
from leyden.core.strategies.strategy import Strategy

Filter = Mapping[str, Callable[[str, Any], bool]]


class MissingStateError(MisconfigurationException, KeyError):
    """A file lacks something that was to be loaded from it."""

    def __str__(self) -> str:
        return str(self.args[0])


def save(strategy: Strategy, path: str | os.PathLike[str], state: Mapping[str, Any], filter: Filter | None) -> None:
    """Write a checkpoint; every process calls this, and the first one writes, or all with sharded states.

    Args:
        strategy: What knows the processes.
        path: The file, or the folder of sharded states.
        state: What to save: modules, optimisers, everything with ``state_dict``, and plain data.
        filter: For keys of ``state``, a function of an entry's key and value that tells whether it is saved.

    Raises:
        CheckpointError: Something in ``state`` is no plain data, or the file can not be written; on every process.
    """
    _check_filter(state, filter)
    target = local_path(path)
    states = {key: _kept(_state_of(strategy, value), key, filter or {}) for key, value in state.items()}
    if strategy.state_dict_type == "sharded":
        sharded.save(strategy, target, states, {"kind": "fabric"})
        return
    problem: CheckpointError | None = None
    if strategy.is_global_zero:
        try:
            file.save(target, states, {"kind": "fabric"})
        except CheckpointError as error:
            problem = error
    told = strategy.broadcast(None if problem is None else str(problem))
    if told is not None:
        raise CheckpointError(told) from problem


def load(
    strategy: Strategy,
    path: str | os.PathLike[str],
    state: dict[str, Any] | None,
    strict: bool,
    trust: bool,
) -> dict[str, Any]:
    """Read a checkpoint into the objects of a state; every process calls this, and each reads what it needs.

    Args:
        strategy: What knows the processes.
        path: The file, or the folder of sharded states.
        state: What to load into: objects with ``load_state_dict`` take their state over, other values are replaced;
            None for nothing.
        strict: Whether modules take exactly their keys, and the file must have every key of ``state``.
        trust: Whether a file that only code can rebuild may run that code.

    Returns:
        What the file has beside ``state``.

    Raises:
        MissingStateError: The file lacks a key of ``state``. Nothing was loaded.
    """
    wanted = {} if state is None else state
    later = [key for key, target in wanted.items() if _reads_shards(strategy, target)]
    found = sharded.load(local_path(path), "cpu", strategy=strategy, later=later, trust=trust)
    missing = [key for key in wanted if key not in found]
    if missing and strict:
        raise MissingStateError(
            f"The requested state contains a key '{missing[0]}' that does not exist in the loaded checkpoint {path},"
            f" which has {sorted(map(str, found))}. To disable strict loading, set `strict=False`."
        )
    for key in wanted:
        if key in found:
            value = found.pop(key)
            if _takes_state(wanted[key]):
                load_into(strategy, wanted[key], value, strict)
            else:
                wanted[key] = value
    return found


def load_into(strategy: Strategy, target: Any, state: Any, strict: bool) -> None:
    """Load a state into a module, an optimiser or whatever has ``load_state_dict``."""
    owner, target = strategy_of(strategy, target), _outer(target)
    if isinstance(target, _FabricModule):
        owner.load_model_state_dict(state, strict)
    elif isinstance(target, nn.Module):
        target.load_state_dict(state, strict=strict)
    elif isinstance(target, (_FabricOptimizer, Optimizer)):
        owner.load_optimizer_state_dict(unwrapped(target), state)
    else:
        target.load_state_dict(state)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine's file system.

    Raises:
        NotYetSupported: It is a URL.
    """
    if "://" in str(path):
        raise NotYetSupported(f"{path} is a URL; this version saves and loads files of this machine.")
    return Path(path)


def strategy_of(strategy: Strategy, obj: Any) -> Strategy:
    """Return the strategy that an object was set up with, or the one given."""
    obj = _outer(obj)
    return obj._strategy if isinstance(obj, (_FabricModule, _FabricOptimizer)) else strategy


def _outer(obj: Any) -> Any:
    """Return what was given to `torch.compile` after it was set up."""
    inner = compiled_from(obj) if isinstance(obj, nn.Module) else None
    return obj if inner is None else inner


def _state_of(strategy: Strategy, value: Any) -> Any:
    owner, value = strategy_of(strategy, value), _outer(value)
    if isinstance(value, _FabricModule):
        return owner.saved_model_state()
    if isinstance(value, (_FabricOptimizer, Optimizer)):
        return owner.saved_optimizer_state(unwrapped(value))
    return value.state_dict() if _takes_state(value) else value


def _reads_shards(strategy: Strategy, target: Any) -> bool:
    kinds = (_FabricModule, _FabricOptimizer, Optimizer)
    return isinstance(_outer(target), kinds) and strategy_of(strategy, target).reads_shards


def _takes_state(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _kept(state: Any, key: str, filter: Filter) -> Any:
    if key not in filter or not isinstance(state, dict):
        return state
    return {name: value for name, value in state.items() if filter[key](name, value)}


def _check_filter(state: Mapping[str, Any], filter: Filter | None) -> None:
    if filter is None:
        return
    if not isinstance(filter, Mapping):
        raise MisconfigurationTypeError(f"Filter should be a dictionary, given {filter!r}")
    if unknown := set(filter) - set(state):
        raise MisconfigurationValueError(f"The filter keys {unknown} are not present in the state keys {set(state)}.")
    for key, choose in filter.items():
        if not callable(choose):
            raise MisconfigurationTypeError(
                f"Expected `fabric.save(filter=...)` for key {key!r} to be a callable, given {choose!r}"
            )
