# SPDX-License-Identifier: Apache-2.0
"""Several metrics as one: one call, one update per kind of state, one synchronisation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeAlias, Union

from torch import Tensor, nn

from leyden.metrics.errors import MetricTypeError, MetricValueError
from leyden.metrics.leaves import installed, joined, specs_of, states_of
from leyden.metrics.metric import Metric
from leyden.metrics.module import StatefulModule
from leyden.metrics.passes import forward_together, keywords_of
from leyden.metrics.states import States, StateSpec, Store
from leyden.metrics.sync import reduce_states

Members: TypeAlias = Union[
    Metric,
    "MetricCollection",
    Sequence[Union[Metric, "MetricCollection"]],
    Mapping[str, Union[Metric, "MetricCollection"]],
]


class MetricCollection(nn.Module):
    """Metrics that see the same batches.

    Members whose `Metric.update_key` is equal share their states from the first batch on: they cost one update. A
    member that is updated or reset on its own stops sharing until the collection is reset.

    Args:
        metrics: A metric, a collection, or several in a sequence (named by class) or a mapping, whose order is kept.
        *additional_metrics: More metrics, named by class.
        prefix: Put before each name of the result.
        postfix: Put after each name of the result.
        compute_groups: Whether members share states.

    Raises:
        MetricValueError: If two members have one name, or a name can not be one of a module.
        MetricTypeError: If a member is no metric.

    Examples:
        >>> import torch
        >>> from leyden.metrics import MetricCollection, MulticlassAccuracy, MulticlassF1Score
        >>> metrics = MetricCollection({"acc": MulticlassAccuracy(3), "f1": MulticlassF1Score(3)}, prefix="val_")
        >>> metrics.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
        >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
        {'val_acc': 0.667, 'val_f1': 0.556}
    """

    _groups: list[list[Metric]]
    _batch: dict[str, Any] | None

    def __init__(
        self,
        metrics: Members,
        *additional_metrics: Metric | MetricCollection,
        prefix: str | None = None,
        postfix: str | None = None,
        compute_groups: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(compute_groups, bool):
            raise MetricTypeError(
                f"compute_groups must be True or False; got {compute_groups!r}: groups follow from the members"
            )
        self.prefix = _affix("prefix", prefix)
        self.postfix = _affix("postfix", postfix)
        self._shares = compute_groups
        self.__dict__["_batch"] = None
        self.__dict__["_groups"] = []
        self.add_metrics(metrics, *additional_metrics)

    def add_metrics(self, metrics: Members, *additional_metrics: Metric | MetricCollection) -> None:
        """Add members.

        Args:
            metrics: A metric, a collection, or several in a sequence or a mapping.
            *additional_metrics: More metrics, named by class.
        """
        for name, metric in _listed(metrics, additional_metrics):
            if name in self._modules:
                raise MetricValueError(
                    f"two metrics are named {name!r}; give them names: MetricCollection({{'name': metric}})"
                )
            if not name or "." in name or hasattr(self, name):
                raise MetricValueError(
                    f"{name!r} can not name a metric: it is empty, has a dot or is taken by the collection"
                )
            self.add_module(name, metric)
        self._regroup()

    def _members(self) -> dict[str, Metric]:
        return self._modules  # type: ignore[return-value]  # only add_metrics puts modules there

    def _regroup(self) -> None:
        """Let members with equal keys and no data hold one store, the one with the most counters."""
        groups: dict[Any, list[Metric]] = {}
        sources = {id(source): source for metric in self._members().values() for source in metric._sources()}
        for metric in sources.values():
            key = metric.update_key() if self._shares and not metric.update_called else None
            groups.setdefault(id(metric) if key is None else (key, metric.device), []).append(metric)
        for members in groups.values():
            stores = {id(metric._store) for metric in members}
            if len(stores) > 1:
                store = max((metric._store for metric in members), key=_counters).fresh()
                store.placed = any(metric._store.placed for metric in members)
                store.sharers = len(members)
                for metric in members:
                    metric.__dict__["_store"] = store
        self.__dict__["_groups"] = list(groups.values())

    def _clusters(self) -> Iterator[list[Metric]]:
        """Yield the metrics that hold one store now; one that was used alone has left its group."""
        for group in self._groups:
            if len(group) == 1 or all(metric._store is group[0]._store for metric in group):
                yield group
            else:
                stores: dict[int, list[Metric]] = {}
                for metric in group:
                    stores.setdefault(id(metric._store), []).append(metric)
                yield from stores.values()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add one batch to every member; each gets the keywords that its ``update`` knows.

        Raises:
            MetricTypeError: If no member knows a keyword.
        """
        for sharers, known in self._with_keywords(kwargs):
            with _driven(sharers[0]._store):
                sharers[0].update(*args, **known)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Add one batch to every member and return the members' values of that batch."""
        values: dict[int, Any] = {}
        for sharers, known in self._with_keywords(kwargs):
            with _driven(sharers[0]._store):
                results = [sharers[0](*args, **known)] if len(sharers) == 1 else forward_together(sharers, args, known)
            values |= {id(metric): result for metric, result in zip(sharers, results, strict=True)}
        members = self._members().items()
        named = self._named({n: m._remember_batch(m._value(lambda source: values[id(source)])) for n, m in members})
        self.__dict__["_batch"] = {name: v.detach() if isinstance(v, Tensor) else v for name, v in named.items()}
        return named

    def compute(self) -> dict[str, Any]:
        """Return the members' values by name; results that are mappings are taken apart.

        With several ranks the states of all members cross them together.
        """
        members = self._members()
        groups = {id(metric._group.group): metric._group.group for metric in members.values()}
        together = len(groups) == 1 and all(m.sync_on_compute and not m._is_synced() for m in members.values())
        if together and next(iter(members.values()))._must_sync():
            with self.synced(reduce_states(self.state_specs(), self.export_states(), groups.popitem()[1])):
                return self._named({name: metric.compute() for name, metric in members.items()})
        return self._named({name: metric.compute() for name, metric in members.items()})

    def reset(self) -> None:
        """Forget everything that was seen, in every member."""
        for sharers in self._groups:
            for metric in sharers:
                with _driven(metric._store):
                    metric.reset()
        for metric in self._members().values():
            metric._life.cache = metric._life.batch_value = None
        self.__dict__["_batch"] = None
        self._regroup()

    @property
    def batch_value(self) -> dict[str, Any] | None:
        """The members' values of the last batch that went through ``forward``, or None."""
        return self._batch

    @property
    def compute_groups(self) -> dict[int, list[str]]:
        """The names of the members (or parts of members) that share one store, by number of the group."""
        names = {id(leaf): path for path, leaf in reversed(list(self._leaves()))}
        return {i: [names[id(metric)] for metric in sharers] for i, sharers in enumerate(self._clusters())}

    def state_specs(self) -> dict[str, StateSpec]:
        """Return how each state combines across batches and ranks, by ``member/state``, shared ones once."""
        return specs_of(self._leaves())

    def export_states(self) -> States:
        """Return this rank's states by ``member/state``; they are the live ones."""
        return states_of(self._leaves())

    def synced(self, states: States) -> AbstractContextManager[None]:
        """Hold global states for the length of a ``with`` block, in which ``compute`` does not synchronise."""
        return installed(self._leaves(), states)

    def persistent(self, mode: bool = True) -> None:
        """Set for every member whether its states are part of ``state_dict``."""
        for metric in self._members().values():
            metric.persistent(mode)

    def clone(self, prefix: str | None = None, postfix: str | None = None) -> Self:
        """Return an independent copy, data included, with another prefix or postfix if one is given."""
        other = copy.deepcopy(self)
        other.prefix = _affix("prefix", prefix) or other.prefix
        other.postfix = _affix("postfix", postfix) or other.postfix
        return other

    def keys(self, keep_base: bool = False) -> list[str]:
        """Return the names of the result, or with ``keep_base`` those without prefix and postfix."""
        return [name if keep_base else self._full(name) for name in self._members()]

    def values(self) -> list[Metric]:
        """Return the members."""
        return list(self._members().values())

    def items(self, keep_base: bool = False) -> list[tuple[str, Metric]]:
        """Return names and members."""
        return list(zip(self.keys(keep_base), self.values(), strict=True))

    def __getitem__(self, name: str) -> Metric:
        members = self._members()
        for base in members:
            if name in (base, self._full(base)):
                return members[base]
        raise KeyError(f"no metric is named {name!r}; there are {self.keys()}")

    def __contains__(self, name: object) -> bool:
        return any(name in (base, self._full(base)) for base in self._members())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._members())

    def extra_repr(self) -> str:
        """Name prefix and postfix."""
        return ", ".join(f"{name}={value!r}" for name in ("prefix", "postfix") if (value := getattr(self, name)))

    def _full(self, name: str) -> str:
        return f"{self.prefix or ''}{name}{self.postfix or ''}"

    def _leaves(self) -> Iterator[tuple[str, StatefulModule]]:
        for name, metric in self._members().items():
            for path, leaf in metric._leaves():
                yield joined(name, path), leaf

    def _with_keywords(self, kwargs: Mapping[str, Any]) -> list[tuple[list[Metric], Mapping[str, Any]]]:
        clusters = list(self._clusters())
        return list(zip(clusters, keywords_of([members[0] for members in clusters], kwargs), strict=True))

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        parts = [key for value in values.values() if isinstance(value, Mapping) for key in value]
        flat: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(value, Mapping):
                flat[self._full(name)] = value
                continue
            for key, item in value.items():
                unique = parts.count(key) == 1 and key not in values
                flat[self._full(key if unique else f"{name}_{key}")] = item
        return flat


@contextmanager
def _driven(store: Store) -> Iterator[None]:
    """Let a member act on the store for all who share it."""
    store.driven = True
    try:
        yield
    finally:
        store.driven = False


def _counters(store: Store) -> int:
    return sum(default.numel() for default in store.defaults.values() if isinstance(default, Tensor))


def _affix(name: str, value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise MetricTypeError(f"{name} must be a string or None; got {value!r}")
    return value


def _listed(metrics: Members, more: Iterable[Metric | MetricCollection]) -> Iterator[tuple[str, Metric]]:
    """Yield every metric with its name; a collection stands for its members."""
    if isinstance(metrics, Mapping):
        for name, metric in metrics.items():
            if isinstance(metric, MetricCollection):
                yield from ((f"{name}_{key}", member) for key, member in metric.items())
            else:
                yield str(name), _checked(metric)
        unnamed = list(more)
    else:
        first = list(metrics) if isinstance(metrics, Sequence) else [metrics]
        unnamed = [*first, *more]
    for metric in unnamed:
        if isinstance(metric, MetricCollection):
            yield from metric.items()
        else:
            yield type(metric).__name__, _checked(metric)


def _checked(metric: Any) -> Metric:
    if not isinstance(metric, Metric):
        raise MetricTypeError(f"a MetricCollection holds leyden.metrics metrics; got {metric!r}")
    return metric
