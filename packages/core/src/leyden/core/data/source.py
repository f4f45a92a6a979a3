# SPDX-License-Identifier: Apache-2.0
"""Where loaders come from: the arguments of a verb, the data module, the module; and what counts as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from leyden.core.data.combined import CombinedLoader
from leyden.core.datamodule import DataHooks
from leyden.core.errors import MisconfigurationException

_WHERE = {
    "train": "Trainer.fit(train_dataloaders=...)",
    "val": "Trainer.fit(val_dataloaders=...)` or `Trainer.validate(dataloaders=...)",
    "test": "Trainer.test(dataloaders=...)",
    "predict": "Trainer.predict(dataloaders=...)",
}


def is_loader(value: Any) -> bool:
    """Tell whether a value is one loader: an iterable that is no tensor, array, text, list, tuple or dict."""
    return isinstance(value, Iterable) and not isinstance(value, (Tensor, np.ndarray, str, bytes, list, tuple, Mapping))


def is_collection(value: Any) -> bool:
    """Tell whether a list, tuple or dict is a collection of loaders (every leaf is one) and not data."""
    if isinstance(value, Mapping):
        return bool(value) and all(is_loader(v) or is_collection(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(is_loader(v) or is_collection(v) for v in value)
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
        self.owner = next((o for o in owners if o is not None and self._defines(o)), None)

    def _defines(self, owner: Any) -> bool:
        found = getattr(owner, self.hook, None)
        return found is not None and getattr(found, "__func__", None) is not getattr(DataHooks, self.hook)

    @property
    def defined(self) -> bool:
        """Whether there are loaders at all."""
        return self.given is not None or self.owner is not None

    def load(self) -> Any:
        """Return the loaders, asking the hook if none were given.

        Raises:
            MisconfigurationException: What was given or returned is nothing to iterate over.
        """
        value = self.given if self.given is not None else getattr(self.owner, self.hook)()
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            return value
        if self.given is not None:
            where = f"passed to `{_WHERE[self.kind]}`"
        else:
            where = f"returned from `{type(self.owner).__qualname__}.{self.hook}()`"
        raise MisconfigurationException(f"An invalid dataloader was {where}. Found {value!r}.")


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
