# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters as plain data, and back.

A checkpoint may hold nothing that needs code to be rebuilt. Values with an obvious plain form (paths, enums,
dataclasses, NumPy numbers) are stored in that form, and a side table notes what they were. Going back, the type is
never taken from the file: it is one of a few fixed ones, or it stands in the annotations of the class that the caller
chose.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import typing
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leyden.core.errors import CheckpointError, warn

_LEAVES = (NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
DEEPEST = 64
MOST_PARTS = 100_000
# torch's reader of plain data takes integers of up to 255 bytes
MOST_BITS = 2032


class NotPlainError(TypeError):
    """A value has no plain form; ``args[0]`` says what it is."""


def _is_leaf(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() <= MOST_BITS)
    return kind in _LEAVES and not (kind is bytes and not value)


class _Flattening:
    """One value on its way into plain data.

    Every part of it has a path, written as in Python: ``root['key'][0].field``; the types of parts that change are
    noted under it.
    """

    def __init__(self, types: dict[str, str]) -> None:
        self.types = types
        self._open: set[int] = set()
        self._parts = 0

    @contextmanager
    def _inside(self, container: Any) -> Iterator[None]:
        if id(container) in self._open:
            raise NotPlainError("value that contains itself")
        if len(self._open) >= DEEPEST:
            raise NotPlainError(f"value that is nested more than {DEEPEST} levels deep")
        self._open.add(id(container))
        yield
        self._open.discard(id(container))

    def plain(self, value: Any, path: str) -> Any:
        """Return the plain form of a part.

        Raises:
            NotPlainError: It has none.
        """
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise NotPlainError(f"value of more than {MOST_PARTS} parts, which a file of its own should hold")
        if _is_leaf(value):
            return value
        if type(value) is bytes:
            # torch's reader of plain data refuses the form in which pickle writes empty bytes
            self.types[path] = "no bytes"
            return ""
        if isinstance(value, Tensor):
            return value.detach().cpu().clone()
        if isinstance(value, enum.Enum):
            by_value = _is_leaf(value.value)
            self.types[path] = "enum" if by_value else "enum name"
            return value.value if by_value else value.name
        if isinstance(value, PurePath):
            self.types[path] = "path"
            return str(value)
        if isinstance(value, timedelta):
            self.types[path] = "seconds"
            return value.total_seconds()
        if isinstance(value, (np.generic, np.ndarray)):
            return self._numpy(value, path)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (int, float)):
            number = int.__int__(value) if isinstance(value, int) else float.__float__(value)
            if _is_leaf(number):
                return number
            raise NotPlainError(f"int of more than {MOST_BITS} bits")
        with self._inside(value):
            return self._container(value, path)

    def _numpy(self, value: Any, path: str) -> Any:
        if isinstance(value, np.generic):
            number = value.item()
            if _is_leaf(number):
                return number
        else:
            try:
                tensor = torch.from_numpy(np.array(value))
            except TypeError:
                pass
            else:
                self.types[path] = "array"
                return tensor
        raise NotPlainError(f"NumPy value of type {value.dtype}")

    def _container(self, value: Any, path: str) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.types[path] = "dataclass"
            return self._fields({f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}, path)
        if isinstance(value, Namespace):
            self.types[path] = "namespace"
            return self._fields(vars(value), path)
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._collection(value, path)
        raise NotPlainError(f"{type(value).__module__}.{type(value).__qualname__}")

    def _fields(self, values: dict[str, Any], path: str) -> dict[str, Any]:
        return {name: self.plain(value, f"{path}.{name}") for name, value in values.items()}

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        if type(value) is dict and all(_is_leaf(k) and _is_leaf(v) for k, v in value.items()):
            return dict(value)
        items: dict[Any, Any] = {}
        for key, item in value.items():
            name = self._key(key, path)
            if name in items:
                raise NotPlainError(f"mapping with two keys that are both {name!r} as plain data")
            items[name] = self.plain(item, f"{path}[{name!r}]")
        if type(value) is OrderedDict:
            return OrderedDict(items)
        return Counter(items) if type(value) is Counter else items

    def _key(self, key: Any, path: str) -> Any:
        if _is_leaf(key):
            return key
        name = _Flattening({}).plain(key, "")
        try:
            hash(name)
        except TypeError:
            raise NotPlainError(f"mapping with a key of type {type(key).__qualname__}") from None
        return self.plain(key, f"key of {path}[{name!r}]")

    def _collection(self, value: Any, path: str) -> Any:
        known = len(self.types)
        if all(map(_is_leaf, value)):
            parts = list(value)
        else:
            parts = [self.plain(v, f"{path}[{i}]") for i, v in enumerate(value)]
        if isinstance(value, tuple):
            if hasattr(value, "_fields"):
                self.types[path] = "namedtuple"
            return tuple(parts)
        if isinstance(value, list):
            return parts
        # a file can hold a set, but neither a frozen one nor, in an order that types could refer to, changed elements
        if isinstance(value, frozenset) or len(self.types) != known:
            self.types[path] = "frozenset" if isinstance(value, frozenset) else "set"
            return parts
        return set(parts)


def plain_hyper_parameters(hparams: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return the storable part of hyper-parameters. No value makes this fail.

    Args:
        hparams: Anything by name.

    Returns:
        The plain values by name, the side table of types, and for each name that can not be stored what it is.

    Examples:
        >>> from pathlib import Path
        >>> from leyden.core.plain import plain_hyper_parameters
        >>> plain_hyper_parameters({"lr": 0.1, "data": Path("digits"), "act": abs})
        ({'lr': 0.1, 'data': 'digits'}, {'data': 'path'}, {'act': 'builtins.builtin_function_or_method'})
    """
    plain: dict[str, Any] = {}
    types: dict[str, str] = {}
    omitted: dict[str, str] = {}
    for name, value in hparams.items():
        found: dict[str, str] = {}
        try:
            if type(name) is not str:
                raise NotPlainError("value whose name is no text")
            plain[name] = _Flattening(found).plain(value, name)
        except NotPlainError as error:
            omitted[str(name)] = str(error)
        except Exception as error:  # noqa: BLE001 - what a property or a lazy mapping raises must not end the run
            omitted[str(name)] = f"{type(value).__qualname__} that can not be read ({type(error).__name__}: {error})"
        else:
            types |= found
    return plain, types, omitted


def rebuild_for(cls: type, hparams: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Rebuild stored hyper-parameters with the annotations of ``cls.__init__``.

    Args:
        cls: The class whose arguments they are.
        hparams: The stored plain values by name.
        types: The stored side table.

    Raises:
        CheckpointError: A stored value does not fit the annotated class.

    Examples:
        >>> from leyden.core.plain import rebuild_for
        >>> class Model:
        ...     def __init__(self, data): ...
        >>> rebuild_for(Model, {"data": "digits"}, {"data": "path"})
        {'data': PosixPath('digits')}
    """
    hints = _hints_of_init(cls)
    rebuilding = _Rebuilding(cls, types)
    return {name: rebuilding.value(value, name, hints.get(name)) for name, value in hparams.items()}


def rebuild_whole(
    cls: type, holder: str, hparams: Mapping[str, Any], types: Mapping[str, str], given: Mapping[str, Any]
) -> Any:
    """Rebuild the one argument of ``cls.__init__`` that holds all hyper-parameters.

    Args:
        cls: The class whose argument it is.
        holder: Name of the argument. If its annotation is a dataclass or `argparse.Namespace`, it becomes one again.
        hparams: The stored plain values by name.
        types: The stored side table.
        given: Values that take the place of stored ones.

    Returns:
        A dataclass, a Namespace, or a dict.

    Raises:
        CheckpointError: The stored values do not fit the annotated class.

    Examples:
        >>> from argparse import Namespace
        >>> from leyden.core.plain import rebuild_whole
        >>> class Model:
        ...     def __init__(self, config: Namespace): ...
        >>> rebuild_whole(Model, "config", {"lr": 0.1, "data": "digits"}, {"data": "path"}, {"width": 2})
        Namespace(lr=0.1, data=PosixPath('digits'), width=2)
    """
    annotation = _hints_of_init(cls).get(holder)
    rebuilding = _Rebuilding(cls, {re.sub(r"^((key of )*)", rf"\1{holder}.", p): kind for p, kind in types.items()})
    stored = {k: v for k, v in hparams.items() if k not in given}
    if any(dataclasses.is_dataclass(c) for c in _candidates(annotation)):
        return rebuilding.dataclass(stored, holder, annotation, given)
    parts = {**rebuilding.fields(stored, holder, {}), **given}
    return Namespace(**parts) if Namespace in _candidates(annotation) else parts


class _Rebuilding:
    """Plain data on its way back into what it was."""

    def __init__(self, cls: type, types: Mapping[str, str]) -> None:
        self.cls, self.types = cls, types
        self._makers: dict[str, Callable[[Any], Any]] = {
            "path": Path,
            "seconds": lambda v: timedelta(seconds=v),
            "array": lambda v: v.numpy(),
            "no bytes": lambda v: b"",
        }

    def value(self, value: Any, path: str, annotation: Any = None) -> Any:
        """Return a part, as far as fixed types and the caller's annotation allow."""
        kind = self.types.get(path)
        if kind in self._makers:
            return self._makers[kind](value)
        if kind in ("enum", "enum name"):
            return self._enum(value, path, annotation, by_value=kind == "enum")
        if kind == "dataclass":
            return self.dataclass(value, path, annotation, {})
        if kind == "namespace":
            return Namespace(**self.fields(value, path, {}))
        if isinstance(value, Mapping):
            key_hint, item_hint = _mapping_hints(annotation)
            items = {
                self.value(k, f"key of {path}[{k!r}]", key_hint): self.value(v, f"{path}[{k!r}]", item_hint)
                for k, v in value.items()
            }
            return type(value)(items)  # type: ignore[call-arg]
        if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
            parts = [self.value(v, f"{path}[{i}]", _element_hint(annotation, i)) for i, v in enumerate(value)]
            return self._collection(kind, type(value), parts, annotation)
        return value

    def _enum(self, value: Any, path: str, annotation: Any, *, by_value: bool) -> Any:
        for candidate in _candidates(annotation):
            if isinstance(candidate, type) and issubclass(candidate, enum.Enum):
                try:
                    return candidate(value) if by_value else candidate[value]
                except (ValueError, KeyError):
                    continue
        return self._left_plain(value, path, "a member of an enum")

    def fields(self, value: Mapping[str, Any], path: str, hints: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a part by name, each with its annotation."""
        return {name: self.value(v, f"{path}.{name}", hints.get(name)) for name, v in value.items()}

    def dataclass(self, value: Mapping[str, Any], path: str, annotation: Any, given: Mapping[str, Any]) -> Any:
        """Return a part as the annotated dataclass; ``given`` completes its stored fields."""
        found = [c for c in _candidates(annotation) if isinstance(c, type) and dataclasses.is_dataclass(c)]
        names = {*value, *given}
        fitting = [c for c in found if {f.name for f in dataclasses.fields(c) if f.init} == names]
        if not found:
            return self._left_plain(self.fields(value, path, {}), path, "a dataclass")
        chosen = (fitting or found)[0]
        parts = {**self.fields(value, path, _hints_of_init(chosen)), **given}
        try:
            return chosen(**parts)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the stored hyper-parameter {path} can not be made a {chosen.__qualname__} again: {error}. Pass it to"
                f" {self.cls.__qualname__}.load_from_checkpoint."
            ) from error

    def _collection(self, kind: str | None, stored: type, parts: list[Any], annotation: Any) -> Any:
        if kind == "namedtuple":
            for candidate in _candidates(annotation):
                if len(getattr(candidate, "_fields", ())) == len(parts):
                    return candidate(*parts)
        return {"set": set, "frozenset": frozenset}.get(kind or "", stored)(parts)

    def _left_plain(self, value: Any, path: str, what: str) -> Any:
        warn(
            "LY-H003",
            f"the hyper-parameter {path} was {what}, but no annotation of {self.cls.__qualname__}.__init__ says which:"
            f" it is {value!r} now. Annotate the argument, or pass it to load_from_checkpoint.",
            stacklevel=2,
        )
        return value


def _candidates(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    return typing.get_args(annotation) if origin is typing.Union or origin is UnionType else (annotation,)


def _element_hint(annotation: Any, index: int) -> Any:
    for candidate in _candidates(annotation):
        arguments = typing.get_args(candidate)
        if arguments and typing.get_origin(candidate) is tuple and arguments[-1] is not Ellipsis:
            return arguments[index] if index < len(arguments) else None
        if arguments:
            return arguments[0]
    return None


def _mapping_hints(annotation: Any) -> tuple[Any, Any]:
    for candidate in _candidates(annotation):
        arguments = typing.get_args(candidate)
        if len(arguments) == 2:
            return arguments
    return None, None


def _hints_of_init(cls: type) -> dict[str, Any]:
    """Return the annotations of ``cls.__init__`` and of those it inherits from, which get its ``**kwargs``."""
    hints: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        function = inspect.unwrap(vars(owner).get("__init__", object.__init__))
        for name, annotation in getattr(function, "__annotations__", {}).items():
            lone = SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(lone, getattr(function, "__globals__", {}))
            except Exception:  # noqa: BLE001 - a name that only type checkers import must not spoil the other arguments
                continue
    return hints
