# SPDX-License-Identifier: Apache-2.0
"""Find the free sizes of a module by asking the module, and enlarge the example so that a mistake shows.

A size is free if forward answers when it changes. In the enlarged example every free size is odd, at least 3 and unlike
all
others: sizes 0 and 1 make a tracer take special paths, and two equal sizes hide a swapped one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import torch
from torch import Tensor

from leyden.export.errors import ExportValueError

Dynamic: TypeAlias = str | Mapping[str, Mapping[int, str]] | None
Place: TypeAlias = tuple[int, int]
Answers: TypeAlias = Callable[[Sequence[Tensor]], bool]

_SMALL = 8
# Elements of an input that is made only to look behind a limit.
_TOO_LARGE = 2**20


@dataclass(frozen=True)
class Axis:
    """One free size.

    Attributes:
        name: Its name.
        places: The dimensions that have it: index of the input, dimension.
        example: The size in the user's example.
        size: The size in the enlarged example.
        low: Smallest size that the module answers.
        high: Largest size, None if none was found.
    """

    name: str
    places: tuple[Place, ...]
    example: int
    size: int
    low: int = 1
    high: int | None = None


def resized(tensors: Sequence[Tensor], places: Sequence[Place], size: int) -> list[Tensor]:
    """Return tensors with other sizes at ``places``, filled by repeating what is there."""
    changed = list(tensors)
    for index, dim in places:
        old = changed[index]
        changed[index] = old.index_select(dim, torch.arange(size) % old.shape[dim])
    return changed


def find_axes(
    answers: Answers, tensors: Sequence[Tensor], names: Sequence[str], dynamic: Dynamic
) -> tuple[list[Axis], list[Tensor]]:
    """Find the free sizes and enlarge the example.

    Args:
        answers: Whether the module answers these tensors.
        tensors: The user's example.
        names: Names of the tensors.
        dynamic: ``"auto"`` asks the module about every dimension; a mapping ``{input: {dimension: name}}`` names the
            free ones; None keeps every size.

    Returns:
        The axes and the enlarged example.
    """
    search = _Search(answers, tensors)
    if dynamic is None:
        return [], list(tensors)
    if isinstance(dynamic, str):
        if dynamic != "auto":
            raise ExportValueError(
                f"dynamic must be 'auto', None or a mapping {{input: {{dimension: name}}}}; got {dynamic!r}"
            )
        search.automatic()
        labels = _labels(search.found, names)
    else:
        named = _named_places(dynamic, tensors, names)
        for label, places in named.items():
            if not search.free(places):
                raise ExportValueError(
                    f"dynamic calls {_where(places, names)} {label!r}, but forward refuses every other size that was "
                    "tried: leave it out"
                )
        labels = list(named)
    axes = [
        Axis(label, places, tensors[places[0][0]].shape[places[0][1]], search.base[places[0][0]].shape[places[0][1]])
        for label, places in zip(labels, search.found, strict=True)
    ]
    return axes, search.base


class _Search:
    """Asks the module which dimensions can change, and keeps the enlarged example up to date."""

    def __init__(self, answers: Answers, tensors: Sequence[Tensor]) -> None:
        self.answers = answers
        self.base = list(tensors)
        self.used = {size for tensor in tensors for size in tensor.shape}
        self.found: list[tuple[Place, ...]] = []

    def automatic(self) -> None:
        """Try equal sizes at the same dimension of several inputs together, then what is left one by one."""
        places = [(i, d) for i, tensor in enumerate(self.base) for d in range(tensor.ndim)]
        together = _grouped(places, lambda p: (p[1], self._size(p)))
        left = [group for group in together if not self.free(group)]
        singles = [(place,) for group in left if len(group) > 1 for place in group]
        refused = [group[0] for group in left if len(group) == 1]
        refused += [single[0] for single in singles if not self.free(single)]
        # What still refuses may need one size at two dimensions: an attention mask is as wide as it is high.
        for group in _grouped(refused, self._size):
            if len(group) > 1:
                self.free(group)
        self._separate()

    def free(self, places: Sequence[Place]) -> bool:
        """Whether the module answers another size at all ``places``; if so it stays in the example."""
        for size in self._candidates(self._size(places[0])):
            trial = resized(self.base, places, size)
            if self.answers(trial):
                self.base = trial
                self.used.add(size)
                self.found.append(tuple(places))
                return True
        return False

    def _separate(self) -> None:
        """Give a dimension its own name if it can change without those that were tried together with it.

        The example is already larger than 1 there, so that broadcasting can not pretend it.
        """
        groups, self.found = self.found, []
        for group in groups:
            rest = list(group)
            for place in group[1:]:
                if self.free([place]):
                    rest.remove(place)
            self.found.append(tuple(sorted(rest)))
        self.found.sort()

    def _size(self, place: Place) -> int:
        return self.base[place[0]].shape[place[1]]

    def _candidates(self, size: int) -> list[int]:
        larger = (s for s in count(3, 2) if s not in self.used and (size <= _SMALL or s > size))
        first = next(larger)
        if size <= _SMALL:
            return [first, next(larger), 2 * size]
        # Downwards too: a position table may end right here. Doubled: a U-shaped network needs multiples.
        return [first, *(s for s in (2 * size, size - 1, size // 2) if s not in self.used)]


def limits(answers: Answers, tensors: Sequence[Tensor], axis: Axis, limit: int | None) -> tuple[int, int | None]:
    """Find the smallest and largest size that the module answers, by halving.

    Args:
        answers: Whether the module answers.
        tensors: The enlarged example.
        axis: The axis.
        limit: The largest size that the graph was made for: a limit far above the example is only found through it.
    """

    def answers_at(size: int) -> bool:
        return answers(resized(tensors, axis.places, size))

    smallest, largest = sorted((axis.size, axis.example))
    low = 1 if answers_at(1) else _halve(answers_at, refused=1, answered=smallest)
    # More than one try: a U-shaped network refuses every odd size, and that is no limit.
    beyond = (largest + 3, largest + 4, 2 * axis.size, 2 * axis.example)
    if not any(answers_at(size) for size in beyond if size > largest):
        return low, _halve(answers_at, refused=largest + 3, answered=largest)
    if limit is None or limit <= largest:
        return low, None
    if too_large(tensors, axis, limit + 1) or not answers_at(limit + 1):
        return low, limit
    return low, None


def _halve(answers_at: Callable[[int], bool], refused: int, answered: int) -> int:
    while abs(answered - refused) > 1:
        middle = (refused + answered) // 2
        if answers_at(middle):
            answered = middle
        else:
            refused = middle
    return answered


def too_large(tensors: Sequence[Tensor], axis: Axis, size: int) -> bool:
    """Whether an input of this size costs more than looking behind a limit is worth."""
    return any(tensors[i].numel() // tensors[i].shape[d] * size > _TOO_LARGE for i, d in axis.places)


def _grouped(places: Sequence[Place], key: Callable[[Place], object]) -> list[list[Place]]:
    groups: dict[object, list[Place]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return list(groups.values())


def _labels(found: Sequence[Sequence[Place]], names: Sequence[str]) -> list[str]:
    """Name the axes: ``batch`` for the first that begins a shape, else input and dimension."""
    labels: list[str] = []
    for places in found:
        index, dim = places[0]
        batch = dim == 0 and "batch" not in labels
        labels.append("batch" if batch else f"{names[index]}_dim{dim}")
    return labels


def _named_places(
    dynamic: Mapping[str, Mapping[int, str]], tensors: Sequence[Tensor], names: Sequence[str]
) -> dict[str, list[Place]]:
    named: dict[str, list[Place]] = {}
    for name, dims in dynamic.items():
        if name not in names:
            raise ExportValueError(f"dynamic names the input {name!r}; the inputs are {', '.join(map(repr, names))}")
        index = list(names).index(name)
        for dim, label in dims.items():
            if not 0 <= dim < tensors[index].ndim:
                raise ExportValueError(
                    f"dynamic[{name!r}] has the dimension {dim!r}; {name!r} has {tensors[index].ndim}"
                )
            named.setdefault(label, []).append((index, dim))
    for label, places in named.items():
        if len({tensors[i].shape[d] for i, d in places}) > 1:
            raise ExportValueError(f"dynamic gives {_where(places, names)} one name, {label!r}, but their sizes differ")
    return named


def _where(places: Sequence[Place], names: Sequence[str]) -> str:
    return ", ".join(f"{names[i]}[{d}]" for i, d in places)


def where(axis: Axis, names: Sequence[str]) -> tuple[str, ...]:
    """Return the axis's dimensions in words, such as ``("x[0]",)``."""
    return tuple(f"{names[i]}[{d}]" for i, d in axis.places)
