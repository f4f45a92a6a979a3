# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters as plain data, and back.

A checkpoint may hold nothing that needs code to be rebuilt. Values with an obvious plain form (paths, enums,
dataclasses,
NumPy numbers) are stored in that form, and a side table notes what they were. Going back, the type is never taken
from the
file: it is one of a few fixed ones, or it stands in the annotations of the class that the caller chose.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_AS_THEY_ARE = (NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_DEEPEST = 64


class NotPlainError(TypeError):
    """A value has no plain form; ``args[0]`` says what it is."""


def to_plain(value: Any, types: dict[str, str], path: str = "", depth: int = 0) -> Any:
    """Return the plain form of a value.

    Args:
        value: Anything.
        types: Filled with ``path -> kind`` for every part whose type changed.
        path: Where the value stands, as keys joined by dots.
        depth: How deep inside other containers it stands.

    Raises:
        NotPlainError: A part of the value can not be stored without code.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if depth > _DEEPEST:
        raise NotPlainError("a value that contains itself or is nested too deeply")
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, enum.Enum):
        types[path] = "enum"
        return to_plain(value.value, {}, path, depth + 1)
    if isinstance(value, PurePath):
        types[path] = "path"
        return str(value)
    if isinstance(value, timedelta):
        types[path] = "seconds"
        return value.total_seconds()
    if isinstance(value, np.ndarray) and value.dtype != object:
        types[path] = "array"
        return torch.from_numpy(np.array(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        types[path] = "dataclass"
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return {n: to_plain(getattr(value, n), types, f"{path}.{n}", depth + 1) for n in names}
    if isinstance(value, Namespace):
        types[path] = "namespace"
        return {k: to_plain(v, types, f"{path}.{k}", depth + 1) for k, v in vars(value).items()}
    return _container_to_plain(value, types, path, depth)


def _container_to_plain(value: Any, types: dict[str, str], path: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        items = {
            to_plain(k, {}, path, depth + 1): to_plain(v, types, f"{path}.{k}", depth + 1) for k, v in value.items()
        }
        if type(value) is OrderedDict:
            return OrderedDict(items)
        return Counter(items) if type(value) is Counter else items
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [to_plain(v, types, f"{path}.{i}", depth + 1) for i, v in enumerate(value)]
        if isinstance(value, tuple):
            return tuple(parts)
        return parts if isinstance(value, list) else set(parts)
    if isinstance(value, (bool, int, float, str)):
        base = next(t for t in (bool, int, float, str) if isinstance(value, t))
        return base(value)
    raise NotPlainError(f"{type(value).__module__}.{type(value).__qualname__}")


def plain_hyper_parameters(hparams: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return the storable part of hyper-parameters.

    Returns:
        The plain values by name, the side table of types, and for each name that can not be stored what it is.
    """
    plain: dict[str, Any] = {}
    types: dict[str, str] = {}
    omitted: dict[str, str] = {}
    for name, value in hparams.items():
        found: dict[str, str] = {}
        try:
            plain[name] = to_plain(value, found, name)
        except NotPlainError as error:
            omitted[name] = str(error)
        else:
            types |= found
    return plain, types, omitted


def rebuild(value: Any, types: Mapping[str, str], path: str, annotation: Any = None) -> Any:
    """Return the value that `to_plain` was given, as far as fixed types and the caller's annotation allow.

    Args:
        value: The stored plain value.
        types: The stored side table.
        path: Where the value stands.
        annotation: The annotation of the parameter in the caller's class, if it has one.
    """
    kind = types.get(path)
    candidates = _candidates(annotation)
    if kind == "path":
        return Path(value)
    if kind == "seconds":
        return timedelta(seconds=value)
    if kind == "array":
        return value.numpy()
    if kind == "namespace":
        return Namespace(**{k: rebuild(v, types, f"{path}.{k}") for k, v in value.items()})
    if kind == "enum":
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
                return candidate(value)
        return value
    if kind == "dataclass":
        for candidate in candidates:
            if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
                hints = typing.get_type_hints(candidate)
                parts = {k: rebuild(v, types, f"{path}.{k}", hints.get(k)) for k, v in value.items()}
                return candidate(**parts)
    if isinstance(value, dict):
        return {k: rebuild(v, types, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        inner = next(iter(typing.get_args(annotation)), None)
        return type(value)([rebuild(v, types, f"{path}.{i}", inner) for i, v in enumerate(value)])
    return value


def _candidates(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    if origin is typing.Union or origin is UnionType:
        return typing.get_args(annotation)
    return (annotation,)


def rebuild_for(cls: type, hparams: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Rebuild stored hyper-parameters with the annotations of ``cls.__init__``."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        hints = {n: p.annotation for n, p in inspect.signature(cls).parameters.items()}
    return {name: rebuild(value, types, name, hints.get(name)) for name, value in hparams.items()}
