# SPDX-License-Identifier: Apache-2.0
"""Callbacks that start a fresh run from the state that they had before their first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from leyden.core.callback import Callback
from leyden.core.hooks import overrides


def remember(callbacks: Iterable[Callback]) -> list[Callable[[], None]]:
    """Return, for every callback that keeps state, what puts it back into the state that it has now."""
    return [_memory(c) for c in callbacks if overrides(c, "state_dict", Callback)]


def _memory(callback: Callback) -> Callable[[], None]:
    attributes: dict[str, Any] = callback.__dict__
    try:
        kept = copy.deepcopy({k: v for k, v in attributes.items() if k not in ("log", "log_dict")})
    except Exception:  # noqa: BLE001 - a callback that holds a lock or a file can still give its state
        state = copy.deepcopy(callback.state_dict())
        return lambda: callback.load_state_dict(copy.deepcopy(state))
    return lambda: attributes.update(copy.deepcopy(kept))
