# SPDX-License-Identifier: Apache-2.0
"""Where loaders come from: the arguments of a verb, the data module, the module; and what counts as one."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from leyden.core.data.combined import CombinedLoader, flatten
from leyden.core.data.hooks import DataHooks
from leyden.core.data.rows import are_columns, is_array, is_dataset, is_table, loader_over, over_batches
from leyden.core.errors import MisconfigurationTypeError
from leyden.core.messages import tell
from leyden.core.ranks import process_rank
from leyden.core.seeding import pl_worker_init_function

_LOG = logging.getLogger(__name__)
BATCH_SIZE = 32


def is_loader(value: Any) -> bool:
    """Tell whether a value is one loader: an iterable that is no array, text, list, tuple or dict; or a data set."""
    if is_dataset(value) or is_table(value):
        return True
    plain = isinstance(value, (Tensor, np.ndarray, str, bytes, list, tuple, Mapping)) or is_array(value)
    return isinstance(value, Iterable) and not plain


def is_collection(value: Any, *, outermost: bool = True) -> bool:
    """Tell whether a list, tuple or dict is a collection of loaders (every leaf is one) and not data.

    In the outermost dict, whose keys would be no batches, a list of batches is a leaf too.
    """

    def leaf(part: Any) -> bool:
        return is_loader(part) or is_collection(part, outermost=False)

    if isinstance(value, Mapping):
        return bool(value) and all(leaf(part) or (outermost and isinstance(part, list)) for part in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(leaf(part) for part in value)
    return False


class Source:
    """The loaders of one kind, from the first place that has them.

    Args:
        kind: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
        given: What the verb was given, or None.
        owners: The data module, if there is one, and the module: the first that defines the hook is asked.
    """

    def __init__(self, kind: str, given: Any, owners: Iterable[Any]) -> None:
        self.kind, self.given = kind, given
        self.hook = f"{kind}_dataloader"
        self.owners = [owner for owner in owners if owner is not None]
        self.owner = next((owner for owner in self.owners if self._defines(owner)), None)
        self._told = False

    def _defines(self, owner: Any) -> bool:
        found = getattr(owner, self.hook, None)
        return found is not None and getattr(found, "__func__", None) is not getattr(DataHooks, self.hook)

    @property
    def defined(self) -> bool:
        """Whether there are loaders at all."""
        return self.given is not None or self.owner is not None

    def load(self, verb: str, shuffle: bool = False) -> Any:
        """Return the loaders, asking the hook if none were given; arrays, tables and data sets get one.

        Args:
            verb: The method of the trainer that asks.
            shuffle: Whether a loader that is made here draws the order of its rows.

        Raises:
            MisconfigurationTypeError: What was given or returned is nothing to iterate over.
        """
        value = self.given if self.given is not None else getattr(self.owner, self.hook)()
        make = partial(loader_over, batch_size=self.batch_size, shuffle=shuffle)
        loaders = with_loaders(value, make)
        self._tell(value, loaders)
        if _can_begin(loaders):
            for leaf in leaves(loaders):
                _seed_workers(leaf)
            return loaders
        if self.given is not None:
            argument = f"{self.kind}_dataloaders" if verb == "fit" else "dataloaders"
            where = f"passed to `Trainer.{verb}({argument}=...)`"
        else:
            where = f"returned from `{type(self.owner).__qualname__}.{self.hook}()`"
        raise MisconfigurationTypeError(f"An invalid dataloader was {where}. Found {value!r}.")

    @property
    def batch_size(self) -> int:
        """Rows in a batch where no loader says: ``batch_size`` of the data module or the module, or of its hparams."""
        for owner in self.owners:
            for size in (getattr(owner, "batch_size", None), owner.hparams.get("batch_size")):
                if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                    return size
        return BATCH_SIZE

    def _tell(self, value: Any, loaders: Any) -> None:
        """Say once how data was read that could have been meant in another way."""
        if self._told:
            return
        self._told = True
        what = f"The {self.kind} data, a {type(value).__name__},"
        if are_columns(value) or is_array(value) or is_table(value) or is_dataset(value):
            rows = "columns of the same rows" if are_columns(value) else "rows"
            tell(_LOG, f"{what} is read as {rows}, {self.batch_size} in a batch.")
        elif isinstance(value, (list, tuple)) and value and all(is_array(part) for part in value):
            _LOG.info("%s is read as %d batches. For the columns of rows, give a dict.", what, len(value))


def with_loaders(value: Any, make: Callable[[Any], Any]) -> Any:
    """Return loaders in which every array, table or data set that stands for one has got its loader.

    Args:
        value: What was given or returned.
        make: Makes a loader over rows, or returns None for what is none.
    """
    if (made := make(value)) is not None:
        return made
    if isinstance(value, CombinedLoader):
        leaves = [_with_loader(leaf, make) for leaf in value.flattened]
        if any(new is not old for new, old in zip(leaves, value.flattened, strict=True)):
            value = copy.copy(value)
            value.flattened = leaves
        return value
    if isinstance(value, Mapping) and is_collection(value):
        filled: Any = copy.copy(value) if isinstance(value, MutableMapping) else dict(value)
        for key, child in value.items():
            filled[key] = over_batches(child) if _is_batches(child) else with_loaders(child, make)
        return filled
    if isinstance(value, (list, tuple)) and is_collection(value):
        parts = [with_loaders(child, make) for child in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _is_batches(value: Any) -> bool:
    return isinstance(value, list) and not is_collection(value)


def _with_loader(leaf: Any, make: Callable[[Any], Any]) -> Any:
    return make(leaf) if is_dataset(leaf) or is_table(leaf) else leaf


def _can_begin(value: Any) -> bool:
    if isinstance(value, (str, bytes)) or (isinstance(value, Mapping) and not is_collection(value)):
        return False
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


def leaves(loaders: Any) -> list[Any]:
    """Return every loader of a collection or a `CombinedLoader`, or the one loader."""
    if isinstance(loaders, CombinedLoader):
        return loaders.flattened
    return flatten(loaders) if is_collection(loaders) else [loaders]


def _seed_workers(loader: Any) -> None:
    # asked for by `seed_everything(workers=True)`
    seeded = os.environ.get("PL_SEED_WORKERS") == "1"
    if seeded and isinstance(loader, DataLoader) and loader.worker_init_fn is None:
        loader.worker_init_fn = partial(pl_worker_init_function, rank=process_rank())


def named_loaders(value: Any) -> list[tuple[str | None, Any]]:
    """Return evaluation loaders in order, with their names where they come in a dict (``outer/inner`` where nested)."""
    if isinstance(value, CombinedLoader) and value.mode == "sequential":
        # only the whole collection may be data: what the user combined is loaders
        return _named(value.iterables, None) if is_collection(value.iterables) else [(None, x) for x in value.flattened]
    return _named(value, None)


def _named(value: Any, name: str | None) -> list[tuple[str | None, Any]]:
    if not is_collection(value):
        return [(name, value)]
    if isinstance(value, Mapping):
        inner: list[tuple[str | None, Any]] = [
            (str(key) if name is None else f"{name}/{key}", child) for key, child in value.items()
        ]
    else:
        inner = [(name, child) for child in value]
    return [pair for key, child in inner for pair in _named(child, key)]
