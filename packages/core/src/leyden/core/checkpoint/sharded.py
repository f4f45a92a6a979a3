# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that processes write together: a folder with their shards, the rest of the state, and a manifest."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from leyden.core.checkpoint import file, manifest
from leyden.core.errors import CheckpointError, CheckpointWriteError, DamagedCheckpointError, LeydenError
from leyden.core.strategies import shards
from leyden.core.strategies.strategy import Strategy

T = TypeVar("T")

REST = "rest.ckpt"


def save(strategy: Strategy, path: Path, state: dict[str, Any], record: Mapping[str, Any]) -> None:
    """Write a folder; every process calls this with its shards, and the first one's rest is kept.

    At every instant ``path`` is absent, what stood there, or the whole new folder; where something is replaced, the old
    one stands beside its name for an instant, and is found there.

    Args:
        strategy: What knows the processes.
        path: Where it will stand, for all processes.
        state: Tensors and plain data.
        record: What the checkpoint is, as JSON data.

    Raises:
        CheckpointError: Something in ``state`` is no plain data.
        CheckpointWriteError: A process can not write; on every process. What stood there before is untouched.
    """
    temporary = strategy.broadcast(file.temporary_name(path))
    first = strategy.is_global_zero
    tensors: dict[str, Tensor] = {}
    places: list[tuple[list[Any], str]] = []
    rest = _without_shards(state, [], tensors, places, {})
    try:
        together(strategy, lambda: _begin(temporary, path, rest, places, record) if first else None)
        shards.write(temporary, tensors)
        found = together(strategy, lambda: _measured(temporary, strategy.global_rank))
        files = {name: entry for part in found for name, entry in part.items()}
        together(strategy, lambda: _finish(temporary, path, record, files) if first else None)
    except BaseException:
        if first:
            manifest.drop(temporary)
        raise


def _without_shards(
    value: Any,
    place: list[Any],
    tensors: dict[str, Tensor],
    places: list[tuple[list[Any], str]],
    names: dict[int, str],
) -> Any:
    """Return a copy with None in the places of tensors that are in shards, which are noted."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        name = names.get(id(value), ".".join(map(str, place)))
        while name in tensors and tensors[name] is not value:
            name += "'"
        names[id(value)], tensors[name] = name, value
        places.append((place, name))
        return None
    if isinstance(value, (dict, list)):
        made: Any = copy.copy(value)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            made[key] = _without_shards(item, [*place, key], tensors, places, names)
        return made
    if isinstance(value, tuple) and any(isinstance(item, DTensor) for item in value):
        return tuple(item.full_tensor().cpu() if isinstance(item, DTensor) else item for item in value)
    return value


def _begin(temporary: Path, path: Path, rest: Any, places: list[Any], record: Mapping[str, Any]) -> None:
    file.refuse_objects(rest, "checkpoint")
    try:
        manifest.check_replaceable(path)
        manifest.drop(temporary)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise CheckpointWriteError(f"could not save the checkpoint {path}: {error}.") from error
    file.save(temporary / REST, {"state": rest, "shards": places}, record)


def _measured(temporary: Path, rank: int) -> dict[str, dict[str, int]]:
    own = [*temporary.glob(f"__{rank}_*"), *([temporary / shards.METADATA, temporary / REST] if rank == 0 else [])]
    try:
        return {path.name: manifest.measured(path) for path in own}
    except OSError as error:
        raise CheckpointWriteError(f"what was written to {temporary} can not be read: {error}.") from error


def _finish(temporary: Path, path: Path, record: Mapping[str, Any], files: dict[str, dict[str, int]]) -> None:
    try:
        manifest.write(temporary, record, files)
        manifest.stand(temporary, path)
    except OSError as error:
        raise CheckpointWriteError(
            f"could not save the checkpoint {path}: {error}. What was saved earlier is untouched."
        ) from error


def load(
    path: str | os.PathLike[str],
    map_location: Any = None,
    *,
    strategy: Strategy | None = None,
    later: Collection[str] = (),
    trust: bool = False,
) -> dict[str, Any]:
    """Read a folder, or a single file, after verifying it: the result is the same for both.

    Args:
        path: The checkpoint.
        map_location: Device for the tensors, as in `torch.load`. What comes from shards stays on the CPU, unless this
            is a device.
        strategy: What knows the processes, which then verify a part each; every process calls this.
        later: Keys of the state under which tensors stay `shards.Stored` until it is known who needs which part.
        trust: Whether code from a single file may run. What describes shards never runs code.

    Raises:
        CheckpointNotFoundError: There is none.
        DamagedCheckpointError: A file is missing, truncated or altered; the error names it.
        UnsafeCheckpointError: It needs code to be rebuilt.
    """
    folder = manifest.check_found(Path(path))
    if not folder.is_dir():
        return file.load(folder, map_location, trust=trust)
    among = strategy or Strategy()
    together(among, partial(manifest.verify, Path(path), among.global_rank, among.world_size))
    state = _opened(folder, map_location, trust)
    now = {key: value for key, value in state.items() if key not in later}
    read = shards.fetch(now)
    return {key: _moved(now[key], read[key], map_location) if key in now else state[key] for key in state}


def _opened(folder: Path, map_location: Any, trust: bool) -> dict[str, Any]:
    """Return the state of a folder with `Stored` in the places of its shards."""
    found = file.load(folder / REST, map_location, trust=trust)
    stored = shards.stored(folder)
    try:
        state: dict[str, Any] = found["state"]
        for (*way, last), name in found["shards"]:
            reduce(lambda inner, key: inner[key], way, state)[last] = stored[name]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(f"the checkpoint {folder} is damaged: {REST} does not fit it: {error}") from error
    return state


def _moved(before: Any, read: Any, map_location: Any) -> Any:
    """Return what was read, its shards on the device that is asked for."""
    if isinstance(before, shards.Stored):
        return read.to(map_location) if isinstance(map_location, (str, torch.device)) else read
    if isinstance(before, dict):
        for key, item in before.items():
            read[key] = _moved(item, read[key], map_location)
    elif isinstance(before, list):
        read[:] = [_moved(item, own, map_location) for item, own in zip(before, read, strict=True)]
    return read


def together(strategy: Strategy, action: Callable[[], T]) -> list[T]:
    """Do something on every process, and return what each found; what fails on one is an error on all."""
    found: T | None = None
    problem: Exception | None = None
    try:
        found = action()
    except Exception as error:  # noqa: BLE001 - told to all processes, and raised again
        problem = error
    told = strategy.gather_objects((found, None if problem is None else (type(problem), str(problem))))
    if problem is not None:
        raise problem
    for rank, (_, failed) in enumerate(told):
        if failed is not None:
            kind = failed[0] if issubclass(failed[0], LeydenError) else CheckpointError
            raise kind(f"process {rank}: {failed[1]}")
    return [result for result, _ in told]  # type: ignore[misc]
