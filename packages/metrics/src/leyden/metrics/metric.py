# SPDX-License-Identifier: Apache-2.0
"""`Metric`, the base of every metric, and what arithmetic on metrics gives."""

from __future__ import annotations

import copy
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self, TypeAlias, Union

import torch
import torch.distributed as dist
from torch import Tensor

from leyden.metrics.errors import MetricError, MetricTypeError, MetricValueError, MetricWarning
from leyden.metrics.leaves import installed, joined, specs_of, states_of
from leyden.metrics.module import StatefulModule
from leyden.metrics.options import GroupReference, check_options
from leyden.metrics.passes import counted_update, finished, forward_together, keywords_of, remembered_compute
from leyden.metrics.states import UPDATE_COUNT, States, StateSpec, Store
from leyden.metrics.sync import reduce_states

Operand: TypeAlias = Union["Metric", Tensor, int, float]


def _binary(
    operation: Callable[[Any, Any], Any], swapped: bool = False
) -> Callable[[Metric, Operand], CompositionalMetric]:
    def method(self: Metric, other: Operand) -> CompositionalMetric:
        if not isinstance(other, (Metric, Tensor, int, float)):
            return NotImplemented
        return CompositionalMetric(operation, other, self) if swapped else CompositionalMetric(operation, self, other)

    return method


def _unary(operation: Callable[[Any], Any]) -> Callable[[Metric], CompositionalMetric]:
    def method(self: Metric) -> CompositionalMetric:
        return CompositionalMetric(operation, self)

    return method


class Metric(StatefulModule, ABC):
    """Accumulates batches and computes one value of all of them.

    A subclass declares its states with `add_state` in ``__init__`` and defines ``update`` and ``compute``. States are
    attributes; they keep their dtype whatever the model is cast to, and follow it to its device.

    Args:
        sync_on_compute: Whether ``compute`` brings the states of all ranks together. It is a collective then: every
            rank calls it equally often.
        dist_sync_on_step: Whether the value of ``forward`` is that of all ranks' batches.
        process_group: The ranks that belong together, or None for all. Copies share it, pickles leave it out.
        compute_with_cache: Whether the value is kept until the states change.
        validate: When values that only the device knows are checked: ``"deferred"`` raises in ``compute``, ``"eager"``
            raises in ``update`` and waits for the device.

    Raises:
        MetricTypeError: If a keyword is unknown.
        MetricValueError: If ``validate`` is neither of the two.

    Attributes:
        higher_is_better: True or False where the better direction is known.
        is_differentiable: Whether the value of ``forward`` carries a gradient.
        full_state_update: True if ``update`` reads what earlier batches left; ``forward`` then updates twice.

    Examples:
        >>> import torch
        >>> from leyden.metrics import Metric
        >>> class Hits(Metric):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        ...         self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        ...     def update(self, preds, target):
        ...         self.hits += (preds == target).sum()
        ...         self.total += target.numel()
        ...     def compute(self):
        ...         return self.hits / self.total
        >>> metric = Hits()
        >>> metric(torch.tensor([1, 2]), torch.tensor([1, 0]))
        tensor(0.5000)
        >>> metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better: ClassVar[bool | None] = None
    is_differentiable: ClassVar[bool | None] = None
    full_state_update: ClassVar[bool | None] = None
    _inputs_only: ClassVar[bool] = False
    """Whether ``update`` computes from its positional tensors and the states alone, so that only those can need a
    gradient."""
    _epoch_wide: ClassVar[tuple[str, ...]] = ()
    """States that a batch value reads as they are for the whole epoch."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        check_options(type(self).__name__, options)
        self.sync_on_compute = bool(options.get("sync_on_compute", True))
        self.dist_sync_on_step = bool(options.get("dist_sync_on_step", False))
        self.compute_with_cache = bool(options.get("compute_with_cache", True))
        self._eager = options.get("validate", "deferred") == "eager"
        self._group = GroupReference(options.get("process_group"))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("update", counted_update), ("compute", remembered_compute)):
            method = cls.__dict__.get(name)
            if method is not None and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, wrap(method))

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add one batch to the states."""

    @abstractmethod
    def compute(self) -> Any:
        """Return the value of everything seen since the last reset."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Add one batch and return the value of that batch alone, from one pass over it."""
        return forward_together([self], args, kwargs)[0]

    @property
    def batch_value(self) -> Any:
        """The value of the last batch that went through ``forward``, or None."""
        return self._life.batch_value

    @property
    def _forward_cache(self) -> Any:
        return self._life.batch_value

    def reset(self) -> None:
        """Forget everything that was seen."""
        store = self._store
        if store.sharers > 1 and not store.driven:
            store.sharers -= 1
            self.__dict__["_store"] = store.fresh()
        else:
            store.reset()
        self._life.cache = self._life.batch_value = None

    def merge_state(self, incoming: Metric | Mapping[str, Any]) -> None:
        """Add what another metric has seen.

        Args:
            incoming: A metric of the same kind and arguments, or what its `export_states` returned.

        Raises:
            MetricValueError: If the states are others than this metric's.
            MetricError: If a state has no reduction, and the class no ``merge_state`` of its own.
        """
        store = self._own_store()
        if isinstance(incoming, Metric):
            mine, theirs = self.state_specs(), incoming.state_specs()
            if {n: (s.dtype, s.shape) for n, s in mine.items()} != {n: (s.dtype, s.shape) for n, s in theirs.items()}:
                raise MetricValueError(
                    f"merge_state needs equal states; {type(self).__name__} has {sorted(mine)}, "
                    f"{type(incoming).__name__} has {sorted(theirs)}: build both with the same arguments"
                )
        states = incoming.export_states() if isinstance(incoming, Metric) else dict(incoming)
        if missing := store.specs.keys() - states.keys():
            raise MetricValueError(f"merge_state needs every state; {sorted(missing)} are missing")
        if not store.mergeable():
            open_ = [n for n, s in store.specs.items() if s.reduction == "merge" and n not in store.folds]
            raise MetricError(f"states {open_} of {type(self).__name__} have no dist_reduce_fx; override merge_state")
        count = int(torch.as_tensor(states.get(UPDATE_COUNT, 1)))
        store.absorb(store.holding({name: states[name] for name in store.specs}, count))

    def state_specs(self) -> dict[str, StateSpec]:
        """Return how each state combines across batches and ranks, by its name."""
        return specs_of(self._leaves())

    def export_states(self) -> States:
        """Return this rank's states by name; they are the live ones, so copy what must outlast the next update."""
        return states_of(self._leaves())

    def synced(self, states: States) -> AbstractContextManager[None]:
        """Hold global states for the length of a ``with`` block, in which ``compute`` does not synchronise.

        Args:
            states: The states of all ranks by the names of `state_specs`, as the transport returns them.
        """
        return installed(self._leaves(), states)

    def clone(self) -> Self:
        """Return an independent copy, data included."""
        return copy.deepcopy(self)

    def update_key(self) -> Hashable | None:
        """Return what decides the states and what ``update`` does to them; None if nobody may share them.

        Metrics of one collection with equal keys share one store and one update.
        """
        return None

    def _leaves(self) -> Iterator[tuple[str, StatefulModule]]:
        yield "", self

    def _sources(self) -> list[Metric]:
        """Return the metrics that are updated when this one is, each once."""
        return [self]

    def _value(self, of: Callable[[Metric], Any]) -> Any:
        """Return the value of this metric, given a function that knows those of its sources."""
        return of(self)

    def _check_values(self) -> None:
        """Raise for values that updates saw and could not judge without waiting for the device."""

    def _token(self) -> Hashable:
        return self._store.version

    def _is_synced(self) -> bool:
        return self._life.synced

    def _must_sync(self) -> bool:
        return dist.is_available() and dist.is_initialized() and dist.get_world_size(self._group.group) > 1

    def _compute_once(self) -> Any:
        life = self._life
        if self.sync_on_compute and not self._is_synced() and self._must_sync():
            # Never from the cache: a rank without new data would stay out of the collective, and the others would hang.
            with self.synced(reduce_states(self.state_specs(), self.export_states(), self._group.group)):
                return self._checked_value()
        token = self._token()
        if life.cache is not None and life.cache[0] == token:
            return life.cache[1]
        if not self.update_called and not self._is_synced():
            message = f"{type(self).__name__}.compute was called before any update; its value stands for no data"
            warnings.warn(message, MetricWarning, stacklevel=3)
        value = self._checked_value()
        if self.compute_with_cache and not self._is_synced():
            life.cache = (token, value)
        return value

    def _checked_value(self) -> Any:
        self._check_values()
        return finished(self._evaluate(), self._store)

    def _evaluate(self) -> Any:
        life = self._life
        life.computing = True
        try:
            return self.compute()
        finally:
            life.computing = False

    def _batch_value(self) -> Any:
        if self.dist_sync_on_step and self._must_sync():
            with self.synced(reduce_states(self.state_specs(), self.export_states(), self._group.group)):
                value = finished(self._evaluate())
        else:
            value = finished(self._evaluate())
        return self._remember_batch(value)

    def _remember_batch(self, value: Any) -> Any:
        self._life.batch_value = value.detach() if isinstance(value, Tensor) else value
        return value

    def _absorb(self, batch: Store) -> None:
        if self._store.mergeable():
            self._store.absorb(batch)
        else:
            self.merge_state({**batch.values, UPDATE_COUNT: torch.tensor(batch.count)})
            self._store.count += batch.count

    def _updates_twice(self) -> bool:
        own_merge = type(self).merge_state is not Metric.merge_state
        return bool(self.full_state_update) or not (own_merge or self._store.mergeable())

    def _united(self, values: States) -> States:
        store = self._store
        folds = {n: store.folds[n](v) for n, v in values.items() if n in store.folds and isinstance(v, Tensor)}
        rest = {n: v for n, v in values.items() if n not in folds}
        if rest and type(self).merge_state is not Metric.merge_state:
            ranks = len(next(iter(rest.values())))
            self.__dict__["_store"] = whole = store.holding({**store.values, **{n: v[0] for n, v in rest.items()}}, 0)
            try:
                for rank in range(1, ranks):
                    self.merge_state({n: v[rank] for n, v in rest.items()})
            finally:
                self.__dict__["_store"] = store
            rest = {n: whole.values[n] for n in rest}
        return {**folds, **rest}

    __add__, __radd__ = _binary(operator.add), _binary(operator.add, swapped=True)
    __sub__, __rsub__ = _binary(operator.sub), _binary(operator.sub, swapped=True)
    __mul__, __rmul__ = _binary(operator.mul), _binary(operator.mul, swapped=True)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _binary(operator.truediv, swapped=True)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv), _binary(operator.floordiv, swapped=True)
    __mod__, __rmod__ = _binary(operator.mod), _binary(operator.mod, swapped=True)
    __pow__, __rpow__ = _binary(operator.pow), _binary(operator.pow, swapped=True)
    __matmul__, __rmatmul__ = _binary(operator.matmul), _binary(operator.matmul, swapped=True)
    __and__, __rand__ = _binary(operator.and_), _binary(operator.and_, swapped=True)
    __or__, __ror__ = _binary(operator.or_), _binary(operator.or_, swapped=True)
    __xor__, __rxor__ = _binary(operator.xor), _binary(operator.xor, swapped=True)
    __lt__, __le__ = _binary(operator.lt), _binary(operator.le)
    __gt__, __ge__ = _binary(operator.gt), _binary(operator.ge)
    __neg__, __pos__ = _unary(operator.neg), _unary(operator.pos)
    __abs__, __invert__ = _unary(operator.abs), _unary(operator.invert)

    def __getitem__(self, index: Any) -> CompositionalMetric:
        return CompositionalMetric(operator.itemgetter(index), self)

    def __iter__(self) -> Iterator[Any]:
        # Without this, Python would call __getitem__ with 0, 1, 2, ... for ever.
        raise MetricTypeError(f"{type(self).__name__} can not be iterated; iterate over its compute()")


class CompositionalMetric(Metric):
    """What arithmetic on metrics gives: a metric whose value is computed from the values of others.

    A metric that occurs several times is updated once.

    Args:
        operator: Function of one or two values; a function of a module, so that the metric can be pickled.
        metric_a: First operand: a metric, a tensor or a number.
        metric_b: Second operand, or None for a function of one value.

    Examples:
        >>> from leyden.metrics import MaxMetric, MinMetric
        >>> spread = MaxMetric() - MinMetric()
        >>> spread.update(3.0)
        >>> spread.update(5.0)
        >>> spread.compute()
        tensor(2.)
    """

    def __init__(
        self, operator: Callable[..., Any], metric_a: Operand, metric_b: Operand | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.op = operator
        self.metric_a = metric_a
        self.metric_b = metric_b

    def _operands(self) -> list[tuple[str, Metric]]:
        named = (("a", self.metric_a), ("b", self.metric_b))
        return [(name, operand) for name, operand in named if isinstance(operand, Metric)]

    def _leaves(self) -> Iterator[tuple[str, StatefulModule]]:
        for name, operand in self._operands():
            for path, leaf in operand._leaves():
                yield joined(name, path), leaf

    def _sources(self) -> list[Metric]:
        return list({id(leaf): leaf for _, leaf in self._leaves() if isinstance(leaf, Metric)}.values())

    def _value(self, of: Callable[[Metric], Any]) -> Any:
        values = []
        for operand in (self.metric_a, self.metric_b):
            if isinstance(operand, Metric):
                values.append(operand._value(of))
            elif operand is not None:
                values.append(operand)
        device = next((v.device for v in values if isinstance(v, Tensor)), None)
        return self.op(*(v.to(device) if isinstance(v, Tensor) else v for v in values))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Update each metric of the expression once, with the keywords that it knows."""
        sources = self._sources()
        for metric, known in zip(sources, keywords_of(sources, kwargs), strict=True):
            metric.update(*args, **known)

    def compute(self) -> Any:
        """Return the value of the expression."""
        return self._value(lambda metric: metric.compute())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run one batch through each metric of the expression and return the expression of their batch values."""
        sources = self._sources()
        known = keywords_of(sources, kwargs)
        values = {id(metric): metric(*args, **known[i]) for i, metric in enumerate(sources)}
        return self._remember_batch(self._value(lambda metric: values[id(metric)]))

    def reset(self) -> None:
        """Reset each metric of the expression."""
        super().reset()
        for metric in self._sources():
            metric.reset()

    def merge_state(self, incoming: Metric | Mapping[str, Any]) -> None:
        """Add what another composition of the same form has seen.

        Raises:
            MetricValueError: If it is not a composition of equally many metrics.
        """
        theirs = incoming._sources() if isinstance(incoming, CompositionalMetric) else []
        if len(theirs) != len(self._sources()):
            raise MetricValueError("merge_state of a composition needs a composition of the same form")
        for mine, other in zip(self._sources(), theirs, strict=True):
            mine.merge_state(other)

    def persistent(self, mode: bool = False) -> None:
        """Set for each metric of the expression whether its states are part of ``state_dict``."""
        for metric in self._sources():
            metric.persistent(mode)

    @property
    def update_count(self) -> int:
        """How many batches the metric that saw most of them holds."""
        return max((metric.update_count for metric in self._sources()), default=0)

    def _token(self) -> Hashable:
        return tuple(metric._token() for metric in self._sources())

    def _is_synced(self) -> bool:
        return all(metric._is_synced() for metric in self._sources())

    def extra_repr(self) -> str:
        """Name the operation."""
        return getattr(self.op, "__name__", repr(self.op))
