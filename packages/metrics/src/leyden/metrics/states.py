# SPDX-License-Identifier: Apache-2.0
"""What a metric remembers: named states, how each combines, and the store that holds them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Reduction: TypeAlias = Literal["sum", "mean", "min", "max", "cat", "merge"]
State: TypeAlias = Tensor | list[Tensor]
States: TypeAlias = dict[str, State]
Fold: TypeAlias = Callable[[Tensor], Tensor]

UPDATE_COUNT = "_update_count"
"""Name under which the number of updates travels with the states."""

# Drawn from for every change of any store, so that one number identifies both the store and its content.
clock = itertools.count(1)


@dataclass(frozen=True)
class StateSpec:
    """How one state of a metric combines across batches and ranks.

    Attributes:
        name: Name of the state; a collection or a composition lists its children as ``child/state``.
        reduction: How two values become one. ``"merge"`` states are gathered and folded by the metric in rank order.
        dtype: Element type of the state.
        shape: Shape of the state; None means that it grows with the data (a list state).
        neutral: The number that changes nothing under ``reduction``: what a rank without data contributes.
        persistent: Whether the state is part of ``state_dict``.
        weight_of: For a ``"mean"`` state, the name of the state that counts its weight.
    """

    name: str
    reduction: Reduction
    dtype: torch.dtype
    shape: tuple[int, ...] | None
    neutral: float | int | None = 0
    persistent: bool = False
    weight_of: str | None = None


def neutral_of(reduction: Reduction, dtype: torch.dtype) -> float | int | None:
    """Return the number that changes nothing when it takes part in a reduction."""
    if reduction in ("cat", "merge"):
        return None
    if reduction in ("sum", "mean"):
        return 0
    if dtype.is_floating_point:
        return float("inf") if reduction == "min" else float("-inf")
    if dtype == torch.bool:
        return 1 if reduction == "min" else 0
    return torch.iinfo(dtype).max if reduction == "min" else torch.iinfo(dtype).min


def outside_of_autograd() -> AbstractContextManager[None]:
    """Return a context in which states are made and changed: without gradients, as normal tensors.

    Tensors that were made in inference mode can not be changed outside of it, so that a state made during validation
    would break the next training epoch; states are therefore always made as normal tensors.
    """
    return _normal_mode() if torch.is_inference_mode_enabled() else torch.no_grad()


@contextmanager
def _normal_mode() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device, in the widest type that the device has."""
    if device.type == "mps" and value.dtype == torch.float64:
        value = value.float()
    return value.to(device)


class Store:
    """The states of one metric, or of several that share one update.

    Attributes:
        specs: Specification of each state.
        values: Present value of each state.
        count: Number of updates in the values.
        version: Changes with every change of the values and is never drawn twice in a process.
        sharers: How many metrics hold this store.
        driven: Whether a collection is updating the store on behalf of all who share it.
        placed: Whether somebody chose the device; if not, the first batch does.
    """

    __slots__ = (
        "_mutable",
        "_released",
        "count",
        "defaults",
        "device",
        "driven",
        "folds",
        "growing",
        "placed",
        "sharers",
        "specs",
        "values",
        "version",
    )

    def __init__(self) -> None:
        self.specs: dict[str, StateSpec] = {}
        self.defaults: States = {}
        self.folds: dict[str, Fold] = {}
        self.values: dict[str, Any] = {}
        self.growing: list[str] = []
        self._mutable: list[str] = []
        self._released: dict[str, int] = {}
        self.count = 0
        self.version = next(clock)
        self.device = torch.get_default_device()
        self.placed = False
        self.sharers = 1
        self.driven = False

    def add(self, spec: StateSpec, default: State, fold: Fold | None = None, constant: bool = False) -> None:
        """Add one state.

        Args:
            spec: Its specification.
            default: Its value before the first batch.
            fold: For a ``"merge"`` state, a function from stacked values to one value.
            constant: Whether updates replace the tensor and never write into it; then the default need not be copied.
        """
        self.specs[spec.name] = spec
        if isinstance(default, list):
            self.growing.append(spec.name)
        else:
            default = on_device(default.detach().clone(), self.device)
        self.defaults[spec.name] = default
        if fold is not None:
            self.folds[spec.name] = fold
        if not constant:
            self._mutable.append(spec.name)
        self.values = self._initial()

    def _initial(self) -> dict[str, Any]:
        values: dict[str, Any] = dict(self.defaults)
        for name in self._mutable:
            default = values[name]
            values[name] = [] if isinstance(default, list) else default.clone()
        return values

    def _sibling(self) -> Store:
        other = Store.__new__(Store)
        other.specs, other.defaults, other.folds = self.specs, self.defaults, self.folds
        other.growing, other._mutable, other._released = self.growing, self._mutable, {}
        other.count = 0
        other.version = next(clock)
        other.device, other.placed = self.device, self.placed
        other.sharers, other.driven = 1, False
        return other

    def fresh(self) -> Store:
        """Return a store of the same kind without data."""
        other = self._sibling()
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):
                other.values = self._initial()
        else:
            other.values = self._initial()
        return other

    def copy(self) -> Store:
        """Return a store of the same kind with a copy of the data."""
        other = self._sibling()
        with outside_of_autograd():
            other.values = {n: list(v) if isinstance(v, list) else v.detach().clone() for n, v in self.values.items()}
        other.count = self.count
        return other

    def holding(self, values: dict[str, Any], count: int) -> Store:
        """Return a store of the same kind with the given data."""
        other = self._sibling()
        other.values = values
        other.count = count
        return other

    def reset(self) -> None:
        """Forget all data."""
        self.values = self.fresh().values
        self._released = {}
        self.count = 0
        self.touch()

    def touch(self) -> None:
        """Mark the values as changed."""
        self.version = next(clock)

    def move(self, device: torch.device) -> None:
        """Bring states and defaults to a device."""
        if device == self.device:
            return

        def moved(value: State) -> State:
            return [on_device(v, device) for v in value] if isinstance(value, list) else on_device(value, device)

        with outside_of_autograd():
            self.defaults = {name: moved(value) for name, value in self.defaults.items()}
            self.values = {name: moved(value) for name, value in self.values.items()}
        self.device = device
        self.touch()

    def adopt_device(self, inputs: Sequence[Any]) -> None:
        """Follow the first batch to its device, if nobody chose one."""
        for value in inputs:
            if isinstance(value, Tensor):
                if value.ndim > 0 or value.device.type != "cpu":
                    self.move(value.device)
                return

    def let_go(self) -> None:
        """Cut new elements of growing states off the autograd graph and off larger storages."""
        for name in self.growing:
            items = self.values[name]
            if isinstance(items, Tensor):
                continue
            first = self._released.get(name, 0)
            for position in range(first if first <= len(items) else 0, len(items)):
                item = items[position]
                if item.untyped_storage().nbytes() > item.numel() * item.element_size():
                    items[position] = item.detach().clone()
                elif item.requires_grad:
                    items[position] = item.detach()
            self._released[name] = len(items)

    def mergeable(self) -> bool:
        """Return whether every state can be combined without the metric's own code."""
        return all(s.reduction != "merge" or name in self.folds for name, s in self.specs.items())

    def absorb(self, other: Store) -> None:
        """Add the data of another store of the same kind."""
        with outside_of_autograd():
            means = {n: self._mean(n, s, other) for n, s in self.specs.items() if s.reduction == "mean"}
            for name, spec in self.specs.items():
                new = other.values[name]
                if spec.reduction != "mean" and new is not self.defaults[name]:
                    self.values[name] = self._combined(name, spec.reduction, self.values[name], new)
            self.values.update(means)
            self.let_go()
        self.count += other.count
        self.touch()

    def _combined(self, name: str, reduction: Reduction, old: State, new: State) -> State:
        if reduction == "cat":
            items = [old] if isinstance(old, Tensor) else old
            items.extend([new] if isinstance(new, Tensor) else new)
            return items
        assert isinstance(old, Tensor)
        assert isinstance(new, Tensor)
        new = self._local(new)
        if reduction == "sum":
            return old.add_(new) if old.shape == new.shape and old.dtype == new.dtype else old + new
        if reduction == "min":
            return torch.minimum(old, new)
        if reduction == "max":
            return torch.maximum(old, new)
        return self.folds[name](torch.stack([old, new]))

    def _mean(self, name: str, spec: StateSpec, other: Store) -> Tensor:
        old, new = self.values[name], other.values[name]
        assert isinstance(old, Tensor)
        assert isinstance(new, Tensor)
        before, added = self._weight(spec), self._local(torch.as_tensor(other._weight(spec)))
        total = before + added
        mean = (old * before + self._local(new) * added) / total
        return torch.where(total != 0, mean, old).to(old.dtype)

    def _local(self, value: Tensor) -> Tensor:
        value = value.detach() if value.requires_grad else value
        return value if value.device == self.device else on_device(value, self.device)

    def _weight(self, spec: StateSpec) -> Tensor | int:
        if spec.weight_of in (None, UPDATE_COUNT):
            return self.count
        weight = self.values[spec.weight_of or ""]
        assert isinstance(weight, Tensor)
        return weight
