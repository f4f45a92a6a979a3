# SPDX-License-Identifier: Apache-2.0
"""Nested values as a flat list of tensors and a tree of plain JSON data, and back.

The tree is stored in the exported file; rebuilding a value from it runs nothing but this module's own code.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from leyden.export.errors import ExportValueError

Tree: TypeAlias = dict[str, Any]
_Key: TypeAlias = str | int


class _Flattening:
    """Collects the tensors of one value in order, each with the path of keys that leads to it."""

    def __init__(self, what: str, *, share: bool) -> None:
        self.what = what
        self.share = share
        self.tensors: list[Tensor] = []
        self.paths: list[tuple[_Key, ...]] = []

    def tree(self, value: Any, path: tuple[_Key, ...]) -> Tree:
        if isinstance(value, Tensor):
            return {"tensor": self._index(value, path)}
        if value is None or isinstance(value, bool | int | float | str):
            if type(value) not in (type(None), bool, int, float, str):
                raise self._refused(value, path)
            return {"constant": value}
        if isinstance(value, dict):
            return {"dict": [[self._key(key, path), self.tree(item, (*path, key))] for key, item in value.items()]}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            items = [[name, self.tree(item, (*path, name))] for name, item in zip(value._fields, value, strict=True)]
            return {"namedtuple": type(value).__name__, "fields": items}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.tree(item, (*path, i)) for i, item in enumerate(value)]}
        raise self._refused(value, path)

    def _index(self, tensor: Tensor, path: tuple[_Key, ...]) -> int:
        if self.share:
            for i, known in enumerate(self.tensors):
                if known is tensor:
                    return i
        self.tensors.append(tensor)
        self.paths.append(path)
        return len(self.tensors) - 1

    def _key(self, key: Any, path: tuple[_Key, ...]) -> _Key:
        if type(key) not in (str, int):
            raise self._refused(key, path, "a dict key that is ")
        return key  # type: ignore[no-any-return]

    def _refused(self, value: Any, path: tuple[_Key, ...], prefix: str = "") -> ExportValueError:
        place = "".join(f"[{key!r}]" for key in path)
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return ExportValueError(
                f"{self.what}{place} is a Python number that depends on the input, which a file can not give back: "
                "return it as a tensor"
            )
        return ExportValueError(
            f"{self.what}{place} is {prefix}a {type(value).__name__}; only tensors, None, booleans, numbers and "
            "strings, in tuples, lists and dicts with keys of str or int, can cross the border of a file: convert it"
        )


def flatten(value: Any, what: str, *, prefix: str = "", share: bool = False) -> tuple[Tree, list[Tensor], list[str]]:
    """Take a nested value apart.

    Args:
        value: Tensors and plain values in tuples, named tuples, lists and dicts.
        what: How an error names the value.
        prefix: First part of the names of tensors that no key leads to.
        share: Whether a tensor that occurs twice becomes one entry.

    Returns:
        The tree, the tensors, and a name for each, made from its keys.
    """
    flattening = _Flattening(what, share=share)
    tree = flattening.tree(value, ())
    return tree, flattening.tensors, unique_names([_name(path, prefix) for path in flattening.paths])


def rebuild(tree: Tree, tensors: Sequence[Tensor]) -> Any:
    """Put a nested value together again."""
    return _walk(tree, lambda i: tensors[i])


def _walk(tree: Tree, leaf: Callable[[int], Tensor]) -> Any:
    if "tensor" in tree:
        return leaf(tree["tensor"])
    if "constant" in tree:
        return tree["constant"]
    if "dict" in tree:
        return {key: _walk(item, leaf) for key, item in tree["dict"]}
    if "namedtuple" in tree:
        # namedtuple itself refuses names that are no identifiers, so that a hostile file gains nothing here.
        kind = namedtuple(tree["namedtuple"], [name for name, _ in tree["fields"]])  # type: ignore[misc]
        return kind(*(_walk(item, leaf) for _, item in tree["fields"]))
    if "list" in tree:
        return [_walk(item, leaf) for item in tree["list"]]
    return tuple(_walk(item, leaf) for item in tree["tuple"])


def difference(expected: Tree, given: Tree, place: str = "") -> str | None:
    """Say in words where two trees part, or None if they are the same."""
    kind, other = next(iter(expected)), next(iter(given))
    if kind != other:
        return f"{place}: expected {_words(expected)}, got {_words(given)}"
    if kind == "constant":
        a, b = expected["constant"], given["constant"]
        same = type(a) is type(b) and (a == b or a != a)
        return None if same else f"{place}: the file was made with {a!r}, got {b!r}"
    if kind in ("dict", "namedtuple"):
        mine, theirs = (dict(map(tuple, tree["dict" if kind == "dict" else "fields"])) for tree in (expected, given))
        if set(mine) != set(theirs):
            return f"{place}: expected the keys {sorted(mine, key=str)}, got {sorted(theirs, key=str)}"
        pairs = [(f"{place}[{key!r}]" if place else str(key), mine[key], theirs[key]) for key in mine]
    elif kind in ("list", "tuple"):
        if len(expected[kind]) != len(given[kind]):
            return f"{place}: expected {len(expected[kind])} items, got {len(given[kind])}"
        pairs = [(f"{place}[{i}]", *two) for i, two in enumerate(zip(expected[kind], given[kind], strict=True))]
    else:
        return None if expected["tensor"] == given["tensor"] else f"{place}: the same tensor in another place"
    return next((text for where, a, b in pairs if (text := difference(a, b, where))), None)


def _words(tree: Tree) -> str:
    kind = next(iter(tree))
    return repr(tree["constant"]) if kind == "constant" else f"a {kind}"


def _name(path: tuple[_Key, ...], prefix: str) -> str:
    parts = [str(key) for key in path]
    if not path or isinstance(path[0], int):
        parts.insert(0, prefix)
    return re.sub(r"\W", "_", "_".join(parts))


def unique_names(names: list[str], taken: Sequence[str] = ()) -> list[str]:
    """Number the names that occur more than once or are taken."""
    seen, unique = set(taken), []
    for name in names:
        fresh, n = name, 1
        while fresh in seen:
            n += 1
            fresh = f"{name}_{n}"
        seen.add(fresh)
        unique.append(fresh)
    return unique
