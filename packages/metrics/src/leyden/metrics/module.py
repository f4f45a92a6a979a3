# SPDX-License-Identifier: Apache-2.0
"""A module whose states live in a store: attribute access, devices, copies and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from leyden.metrics.errors import MetricError, MetricTypeError, MetricValueError
from leyden.metrics.states import (
    UPDATE_COUNT,
    Fold,
    Reduction,
    State,
    States,
    StateSpec,
    Store,
    neutral_of,
    outside_of_autograd,
)

ReduceArgument: TypeAlias = str | Fold | None


@dataclass(slots=True)
class Life:
    """Where a metric stands between two calls; apart from the module, whose attribute writes cost 1.5 us each."""

    updating: bool = False
    computing: bool = False
    synced: bool = False
    keep_grad: bool = False
    persistent: bool | None = None
    cache: tuple[Hashable, Any] | None = None
    batch_value: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has its own versions, to which no cached value of the original belongs.
        return Life, (False, False, False, False, self.persistent)


class StatefulModule(nn.Module):
    """States by name, immune to the model's dtype casts, that follow it from device to device."""

    _store: Store
    _life: Life

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_store"] = Store()
        self.__dict__["_life"] = Life()

    def add_state(
        self,
        name: str,
        default: Tensor | list[Tensor],
        dist_reduce_fx: ReduceArgument = None,
        persistent: bool = False,
        *,
        weight_of: str | None = None,
    ) -> None:
        """Declare a state; afterwards it is an attribute of the metric.

        Args:
            name: Name of the state.
            default: Its value before the first batch: a tensor, or an empty list for a state that grows.
            dist_reduce_fx: How two values become one: ``"sum"``, ``"mean"``, ``"min"``, ``"max"``, ``"cat"`` (lists
                only), or a function from the stacked values, shape ``(n, ...)``, to one value. None keeps a list as it
                is, and leaves a tensor to the metric's own ``merge_state``; without one, ``compute`` sees the stacked
                values of all ranks.
            persistent: Whether the state is part of ``state_dict``.
            weight_of: For ``"mean"``, the state that counts the weight; the number of updates if left out.

        Raises:
            MetricValueError: If the name is taken, the default is no tensor and no empty list, or the reduction
                unknown.
        """
        store = self._store
        if not name.isidentifier() or (hasattr(self, name) and name not in store.specs):
            raise MetricValueError(f"add_state needs a free attribute name; got {name!r}, taken or no identifier")
        if not isinstance(default, Tensor) and default != []:
            raise MetricValueError(f"default of state {name!r} must be a tensor or an empty list; got {default!r}")
        reduction, fold = _reduction(name, default, dist_reduce_fx)
        if reduction == "mean":
            weight_of = weight_of or UPDATE_COUNT
        elif weight_of is not None:
            raise MetricValueError(f"weight_of belongs to 'mean' states only; state {name!r} has {dist_reduce_fx!r}")
        dtype = default.dtype if isinstance(default, Tensor) else torch.get_default_dtype()
        shape = tuple(default.shape) if isinstance(default, Tensor) else None
        spec = StateSpec(name, reduction, dtype, shape, neutral_of(reduction, dtype), persistent, weight_of)
        with outside_of_autograd():
            store.add(spec, default, fold)

    def __getattr__(self, name: str) -> Any:
        store = self.__dict__.get("_store")
        if store is not None and name in store.values:
            return store.values[name]
        if name in ("_store", "_life"):
            raise MetricError(f"{type(self).__name__}.__init__ must call super().__init__() before anything else")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        store = self.__dict__.get("_store")
        if store is None or name not in store.values:
            super().__setattr__(name, value)
            return
        if isinstance(value, Tensor):
            if value.requires_grad and not torch.is_grad_enabled():
                value = value.detach()
        elif not isinstance(value, list):
            value = torch.as_tensor(value, dtype=store.specs[name].dtype, device=store.device)
        store.values[name] = value
        store.touch()

    @property
    def device(self) -> torch.device:
        """The device that holds the states."""
        return self._store.device

    @property
    def update_count(self) -> int:
        """How many batches the states hold."""
        return self._store.count

    @property
    def update_called(self) -> bool:
        """Whether the states hold any batch."""
        return self.update_count > 0

    @property
    def metric_state(self) -> States:
        """The present states by name."""
        return dict(self._store.values)

    def persistent(self, mode: bool = False) -> None:
        """Set for all states whether they are part of ``state_dict``."""
        self._life.persistent = mode

    def _is_persistent(self, spec: StateSpec) -> bool:
        mode = self._life.persistent
        return spec.persistent if mode is None else mode

    def _own_store(self) -> Store:
        """Return a store that nobody else is affected by, leaving the shared one if need be."""
        store = self._store
        if store.sharers > 1 and not store.driven:
            store.sharers -= 1
            store = self.__dict__["_store"] = store.copy()
        return store

    def _layout_for(self, names: set[str]) -> None:
        """Choose among equivalent sets of states the one with these names, before they are loaded."""

    def _united(self, values: States) -> States:
        """Turn the stacked values of ``"merge"`` states into one value each."""
        return values

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # Only the device of the result counts: `model.to(torch.bfloat16)` must not make counters of 8 bits.
        self._store.move(fn(torch.empty(0, device=self._store.device)).device)
        self._store.placed = True
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        saved = [name for name, spec in self._store.specs.items() if self._is_persistent(spec)]
        for name in saved:
            value = self._store.values[name]
            destination[prefix + name] = list(value) if isinstance(value, list) else value.detach()
        if saved:
            destination[prefix + UPDATE_COUNT] = torch.tensor(self._store.count)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        found = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        self._layout_for(set(found))
        store = self._own_store()
        with outside_of_autograd():
            for name, spec in store.specs.items():
                if name in found:
                    self._load_state(store, spec, found[name], prefix, error_msgs)
                elif self._is_persistent(spec):
                    missing_keys.append(prefix + name)
        store.count = int(found.get(UPDATE_COUNT, store.count))
        store.touch()
        ours = {prefix + name for name in (*store.specs, UPDATE_COUNT)}
        rest = {key: value for key, value in state_dict.items() if key not in ours}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def _load_state(self, store: Store, spec: StateSpec, value: State, prefix: str, error_msgs: list[str]) -> None:
        if isinstance(value, list) != (spec.shape is None):
            error_msgs.append(f"state {prefix + spec.name!r}: one of file and metric holds a list, the other a tensor")
        elif isinstance(value, list):
            store.values[spec.name] = [v.to(store.device, copy=True) for v in value]
        elif spec.reduction != "merge" and tuple(value.shape) != spec.shape:
            error_msgs.append(
                f"state {prefix + spec.name!r}: shape {tuple(value.shape)} in the file, {spec.shape} here"
            )
        else:
            store.values[spec.name] = value.detach().to(store.device, spec.dtype, copy=True)


def _reduction(name: str, default: State, argument: ReduceArgument) -> tuple[Reduction, Fold | None]:
    grows = isinstance(default, list)
    if callable(argument):
        return "merge", argument
    if argument is None:
        return ("cat" if grows else "merge"), None
    if not isinstance(argument, str):
        raise MetricTypeError(f"dist_reduce_fx of state {name!r} must be a name, a function or None; got {argument!r}")
    for reduction in ("sum", "mean", "min", "max", "cat"):
        if argument == reduction and grows == (reduction == "cat"):
            return reduction, None
    allowed = "'cat' or None for a list" if grows else "'sum', 'mean', 'min', 'max', None or a function for a tensor"
    raise MetricValueError(f"dist_reduce_fx of state {name!r} must be {allowed}; got {argument!r}")
