# SPDX-License-Identifier: Apache-2.0
"""The random generators of a process: seeding them, saving them, and keeping them out of harm's way."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from leyden.core.errors import MisconfigurationValueError, warn

MAX_SEED = 2**32 - 1


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seed Python's, NumPy's and torch's generators, and remember the seed for processes started later.

    Args:
        seed: Between 0 and 4294967295. None takes the environment variable ``PL_GLOBAL_SEED``, else 0. It also becomes
            that variable.
        workers: Whether data workers get a seed of their own derived from this one.
        verbose: Whether to print the seed.

    Returns:
        The seed.

    Raises:
        MisconfigurationValueError: ``seed`` is no integer of that range.

    Examples:
        >>> from leyden.core import seed_everything
        >>> seed_everything(42, verbose=False)
        42
    """
    if seed is None:
        text = os.environ.get("PL_GLOBAL_SEED")
        if text is None:
            seed = 0
            warn("LY-S001", "No seed found, seed set to 0.")
        else:
            try:
                seed = int(text)
            except ValueError:
                seed = 0
                warn(
                    "LY-S002",
                    f"Invalid seed found in the environment variable PL_GLOBAL_SEED: {text!r}, seed set to 0.",
                )
    given, seed = seed, _whole(seed)
    if seed is None or not 0 <= seed <= MAX_SEED:
        raise MisconfigurationValueError(f"`seed` must be an integer between 0 and {MAX_SEED}; got {given!r}.")
    if verbose:
        print(f"Seed set to {seed}")  # noqa: T201
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    os.environ["PL_SEED_WORKERS"] = str(int(workers))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def _whole(seed: Any) -> int | None:
    try:
        number = int(seed)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isinstance(seed, str) or number == seed else None


def collect_rng_state() -> dict[str, Any]:
    """Return the state of every generator of this process as tensors and plain data.

    Examples:
        >>> import torch
        >>> from leyden.core.seeding import collect_rng_state, restore_rng_state
        >>> state = collect_rng_state()
        >>> first = torch.rand(1)
        >>> restore_rng_state(state)
        >>> bool(first == torch.rand(1))
        True
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys).copy()),
            "pos": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set every generator that `collect_rng_state` recorded."""
    random.setstate(state["python"])
    n = state["numpy"]
    np.random.set_state((n["name"], n["keys"].numpy(), n["pos"], n["has_gauss"], n["cached"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) <= torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def isolate_rng() -> Generator[None, None, None]:
    """Put every generator back to where it stood when the block ends.

    Examples:
        >>> import torch
        >>> from leyden.core.seeding import isolate_rng
        >>> _ = torch.manual_seed(1)
        >>> with isolate_rng():
        ...     first = torch.rand(1)
        >>> bool(first == torch.rand(1))
        True
    """
    state = collect_rng_state()
    try:
        yield
    finally:
        restore_rng_state(state)
