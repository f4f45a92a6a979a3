# SPDX-License-Identifier: Apache-2.0
"""What is known of the loaders of a data module, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyden.core.data.hooks import DataHooks

_KINDS = {"Train": "train", "Validation": "val", "Test": "test", "Predict": "predict"}


def describe(data: DataHooks) -> str:
    """Return a line for every kind of data: the samples of its data sets, ``NA`` where they do not say.

    Args:
        data: The data module. Its loaders are asked for; nothing is prepared or set up.
    """
    return "\n".join(
        f"{{{title} dataloader: {_loaders(data, f'{kind}_dataloader')}}}" for title, kind in _KINDS.items()
    )


def _loaders(data: DataHooks, hook: str) -> str:
    method = getattr(data, hook)
    if getattr(method, "__func__", None) is getattr(DataHooks, hook):
        return "None"
    try:
        loaders = method()
    except Exception:  # noqa: BLE001  # before `setup` a hook may fail in any way; text must be possible all the same
        return "size=NA"
    if isinstance(loaders, Mapping):
        return " ; ".join(f"{name}. {_size(loader)}" for name, loader in loaders.items())
    if isinstance(loaders, (list, tuple)):
        return " ; ".join(f"{number}. {_size(loader)}" for number, loader in enumerate(loaders, 1))
    return _size(loaders)


def _size(loader: Any) -> str:
    try:
        return f"size={len(loader.dataset)}"
    except (AttributeError, NotImplementedError, TypeError):
        return "size=NA"
