# SPDX-License-Identifier: Apache-2.0
"""Any configuration as plain data: total on every input, never runs what it finds, never fails.

What a user puts among the hyper-parameters decides nothing here: functions are named and not called, a cycle is marked,
a failing ``repr`` gives the type's name, and what is written can be read back by a plain YAML or JSON reader.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Mapping, Set
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from leyden.core.errors import warn

Scalar: TypeAlias = bool | int | float | str | None
# Scalar, or lists and dicts of Plain: spelled out, every use would need a cast.
Plain: TypeAlias = Any

DEEPEST = 50
LONGEST_REPR = 200
MOST_VALUES = 16


def plain(value: Any) -> Plain:
    """Return ``value`` as plain data: None, bool, int, float, str, and lists and dicts of those.

    Args:
        value: Anything.

    Returns:
        Numbers, strings and containers stay what they are. Paths, dtypes and devices become strings, an enum its string
        value or its name, a dataclass or Namespace a dict, NumPy scalars and 0-dim tensors numbers, a tensor its dtype
        and shape (and its values when there are at most 16), a function or class its qualified name, NaN and infinities
        strings, an object that contains itself a mark, and anything else its ``repr`` or, failing that, its type.

    Examples:
        >>> plain({"lr": 0.1, "size": (2, 3), "activation": torch.nn.functional.relu, "missing": float("nan")})
        {'lr': 0.1, 'size': [2, 3], 'activation': 'torch.nn.functional.relu', 'missing': 'nan'}
    """
    return _plain(value, ())


def flatten(config: Any, separator: str = "/") -> dict[str, Scalar]:
    """Return a configuration as one level of names and plain scalars, for services that show a table.

    Args:
        config: Anything that `plain` turns into a dict; something else stands under the name ``"value"``.
        separator: Joins the names of nested dicts.

    Returns:
        Scalars by name. A list stands as JSON. Where two names meet (``{"a/b": 1, "a": {"b": 2}}``) the second gets a
        suffix, with a warning.

    Examples:
        >>> flatten({"optimizer": {"name": "adam", "betas": (0.9, 0.99)}, "seed": 1})
        {'optimizer/name': 'adam', 'optimizer/betas': '[0.9, 0.99]', 'seed': 1}
    """
    data = plain(config)
    flat: dict[str, Scalar] = {}
    _flatten(data if isinstance(data, dict) else {"value": data}, "", separator, flat)
    return flat


def _flatten(data: dict[Scalar, Plain], prefix: str, separator: str, flat: dict[str, Scalar]) -> None:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            _flatten(value, f"{name}{separator}", separator, flat)
            continue
        if name in flat:
            free = next(f"{name}_{n}" for n in range(2, len(flat) + 3) if f"{name}_{n}" not in flat)
            warn("LY-L002", f"two hyper-parameters would both be named {name!r}: the second is written as {free!r}")
            name = free
        flat[name] = json.dumps(value) if isinstance(value, list | dict) else value


def _plain(value: Any, parents: tuple[int, ...]) -> Plain:
    if id(value) in parents:
        return "<cycle>"
    if len(parents) >= DEEPEST:
        return "<too deep>"
    try:
        return _convert(value, (*parents, id(value)))
    except Exception:  # noqa: BLE001 - foreign code runs in here (items, __iter__, repr) and may raise anything
        return f"<{_type_name(value)}>"


def _convert(value: Any, parents: tuple[int, ...]) -> Plain:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, Enum):
        return str.__str__(value.value) if isinstance(value.value, str) else value.name
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, PurePath | torch.dtype | torch.device):
        return str(value).removeprefix("torch.")
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _array(value, parents)
    if isinstance(value, functools.partial):
        return _plain({"partial": value.func, "args": value.args, "kwargs": value.keywords}, parents)
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
        return _qualified_name(value)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    elif dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name, "<unset>") for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, parents) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((_plain(item, parents) for item in value), key=repr)
    if _is_sequence(value):
        return [_plain(item, parents) for item in value]
    return _described(value)


def _qualified_name(value: Any) -> str:
    module = value.__module__
    if module is None:
        return str(value.__qualname__)
    # torch.relu calls itself torch._VariableFunctionsClass.relu.
    short = getattr(sys.modules.get(module), value.__name__, None) is value
    return f"{module}.{value.__name__ if short else value.__qualname__}"


def _array(value: Any, parents: tuple[int, ...]) -> Plain:
    known = value.device.type != "meta" if isinstance(value, Tensor) else True
    if value.ndim == 0 and known:
        return _plain(value.item(), parents)
    short = known and math.prod(value.shape) <= MOST_VALUES
    described = {"dtype": str(value.dtype).removeprefix("torch."), "shape": [int(size) for size in value.shape]}
    return {**described, "values": _plain(value.tolist(), parents)} if short else described


def _is_sequence(value: Any) -> bool:
    if isinstance(value, str | bytes | bytearray | memoryview | nn.Module):
        return False
    return hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__") and hasattr(type(value), "__iter__")


def _key(key: Any) -> Scalar:
    data = _plain(key, ())
    return json.dumps(data) if isinstance(data, list | dict) else data


def _described(value: Any) -> str:
    if isinstance(value, nn.Module | ModuleType) or not _has_own_repr(type(value)):
        return f"<{_type_name(value)}>"
    text = str(repr(value))
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}... ({len(text)} characters)"


def _has_own_repr(kind: type) -> bool:
    return any("__repr__" in vars(base) for base in kind.__mro__ if base is not object)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
