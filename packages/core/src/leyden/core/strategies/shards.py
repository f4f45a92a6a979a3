# SPDX-License-Identifier: Apache-2.0
"""Tensors in shards on a disk: a folder of `torch.distributed.checkpoint`, whose metadata can not run code.

That package reads its metadata with `pickle`, and values that are no tensors too. Here the metadata is read with a list
of the few names that it needs, and values as plain data.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leyden.core.errors import CheckpointWriteError, DamagedCheckpointError, UnsafeCheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

METADATA = ".metadata"
Like = Callable[[tuple[Any, ...]], Tensor | None]
_DTYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))
_CLASSES = frozenset({
    "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata", "ChunkStorageMetadata",
    "BytesStorageMetadata", "_MEM_FORMAT_ENCODING",
})  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor that stands in a folder and is not read before it is known who needs which part of it.

    Attributes:
        folder: The folder.
        name: What it is called there.
        shape: Its whole shape.
        dtype: Its format.
    """

    folder: Path
    name: str
    shape: torch.Size
    dtype: torch.dtype

    def whole(self) -> Tensor:
        """Read the whole tensor."""
        found: Tensor = fetch(self)
        return found


def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by their names, each process the shards that it has; every process calls this.

    Raises:
        CheckpointWriteError: A process can not write; on every process.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with quiet():
            save(
                dict(tensors),
                storage_writer=FileSystemWriter(folder),
                planner=DefaultSavePlanner(flatten_state_dict=False),
            )
    except CheckpointException as error:
        rank, cause = _first(error)
        raise CheckpointWriteError(f"process {rank} could not write its shards to {folder}: {cause}") from cause


def stored(folder: Path) -> dict[str, Stored]:
    """Return what stands in a folder, without reading it.

    Raises:
        UnsafeCheckpointError: The metadata holds what only code could rebuild, or names files elsewhere.
        DamagedCheckpointError: There is no metadata, or it can not be read.
    """
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = read_metadata(folder).state_dict_metadata.items()
    return {
        name: Stored(folder, name, entry.size, entry.properties.dtype)
        for name, entry in found
        if isinstance(entry, TensorStorageMetadata)
    }


def fetch(tree: Any, like: Like | None = None) -> Any:
    """Read every `Stored` tensor of dicts and lists that hold each other; no process needs another one for it.

    Args:
        tree: The dicts and lists, or one tensor. It is not changed.
        like: Returns for a place (its keys) a tensor of the place's own, if there is one. If that is in shards, and of
            the same shape, only the shards of this process are read.

    Returns:
        The same with tensors; those that are not in shards are on the CPU.
    """
    wanted: dict[Path, dict[str, Tensor]] = {}
    filled = _filled(tree, (), like or (lambda place: None), wanted)
    for folder, tensors in wanted.items():
        read(folder, tensors)
    return filled


def _filled(value: Any, place: tuple[Any, ...], like: Like, wanted: dict[Path, dict[str, Tensor]]) -> Any:
    if isinstance(value, Stored):
        tensors = wanted.setdefault(value.folder, {})
        if value.name not in tensors:
            tensors[value.name] = _room(value, like(place))
        return tensors[value.name]
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = _filled(item, (*place, key), like, wanted)
        return made
    if isinstance(value, list):
        return [_filled(item, (*place, index), like, wanted) for index, item in enumerate(value)]
    return value


def _room(value: Stored, own: Tensor | None) -> Tensor:
    from torch.distributed.tensor import DTensor

    if isinstance(own, DTensor) and own.shape == value.shape:
        return torch.empty_like(own.detach(), dtype=value.dtype)
    return torch.empty(value.shape, dtype=value.dtype)


def read(folder: Path, state: dict[str, Any]) -> None:
    """Read into tensors, by their names; every process for itself.

    Raises:
        UnsafeCheckpointError: The folder holds what only code could rebuild, or names files elsewhere.
        DamagedCheckpointError: It lacks something, or can not be read.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    reader, planner = _safe(read_metadata(folder), folder)
    try:
        with quiet():
            load(state, storage_reader=reader, planner=planner, no_dist=True)
    except CheckpointException as error:
        cause = _first(error)[1]
        if isinstance(cause, pickle.UnpicklingError):
            found = re.search(r"GLOBAL ([\w.]+)", str(cause))
            raise _unsafe(folder, found.group(1) if found else "more than plain data") from cause
        raise DamagedCheckpointError(f"the shards in {folder} can not be read: {cause}") from cause


def read_metadata(folder: Path) -> Metadata:
    """Return what a folder says of its shards.

    Raises:
        UnsafeCheckpointError: It holds what only code could rebuild, or names files elsewhere.
        DamagedCheckpointError: It is missing, or can not be read.
    """
    from torch.distributed.checkpoint.metadata import Metadata

    path = folder / METADATA
    try:
        found = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except _Refused as error:
        raise _unsafe(path, str(error)) from None
    except Exception as error:  # a damaged pickle fails in any way
        raise DamagedCheckpointError(f"{path} is damaged or missing: {error}") from error
    if not isinstance(found, Metadata) or not isinstance(found.storage_data, dict):
        raise DamagedCheckpointError(f"{path} is no metadata of `torch.distributed.checkpoint`.")
    for place in found.storage_data.values():
        name = getattr(place, "relative_path", None)
        if not isinstance(name, str) or PurePath(name).name != name or "\\" in name or name == "..":
            raise UnsafeCheckpointError(f"{path} names a file outside of its folder: {name!r}. Nothing was read.")
    return found


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    """Reads metadata: a name that is not on the list is not even looked up."""

    def find_class(self, module: str, name: str) -> Any:
        from torch.distributed.checkpoint import filesystem, metadata

        if module == "torch.distributed.checkpoint.metadata" and name in _CLASSES:
            return getattr(metadata, name)
        if (module, name) == ("torch.distributed.checkpoint.filesystem", "_StorageInfo"):
            return filesystem._StorageInfo
        if module == "torch" and name in _DTYPES:
            return getattr(torch, name)
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if (module, name) == ("torch.serialization", "_get_layout"):
            return _layout
        if module in ("pathlib", "pathlib._local") and name in ("PosixPath", "WindowsPath", "PureWindowsPath"):
            # where the folder stood when it was written, maybe on another system
            return PurePath
        raise _Refused(f"{module}.{name}")


def _layout(name: str) -> torch.layout:
    found = getattr(torch, name.removeprefix("torch."))
    assert isinstance(found, torch.layout)
    return found


def _safe(found: Metadata, folder: Path) -> tuple[Any, Any]:
    """Return a reader that has its metadata already, and a planner for it."""
    from torch.distributed.checkpoint._traverse import set_element
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            return found

    class Planner(DefaultLoadPlanner):
        def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
            place = self.mappings[read_item.dest_index.fqn]
            set_element(self.original_state_dict, place, torch.load(value, weights_only=True))

    return Reader(folder), Planner()


def _unsafe(where: Path, needed: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{where} needs {needed}, which would run code while loading; nothing was run. A checkpoint holds tensors and"
        " plain data."
    )


def _first(error: Any) -> tuple[int, Exception]:
    """Return which process failed, and by what; what is no failure, such as Ctrl-C, goes on as it is."""
    rank, (cause, _) = next(iter(error.failures.items()))
    if not isinstance(cause, Exception):
        raise cause
    return rank, cause


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep quiet about a process without others, which is what was meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        yield
