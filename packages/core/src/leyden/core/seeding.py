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
from leyden.core.ranks import process_rank

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
    given: Any = os.environ.get("PL_GLOBAL_SEED", seed) if seed is None else seed
    if given is None:
        given = 0
        if verbose:
            warn("LY-S001", "No seed found, seed set to 0.")
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        where = "Invalid seed specified via PL_GLOBAL_SEED" if seed is None else "Invalid seed"
        raise MisconfigurationValueError(f"{where}: {given!r}; it is an integer from 0 to {MAX_SEED}.") from None
    if not 0 <= number <= MAX_SEED:
        raise MisconfigurationValueError(f"{number} is not in bounds: a seed is an integer from 0 to {MAX_SEED}.")
    seed = number
    if verbose:
        print(f"Seed set to {seed}")  # noqa: T201
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    os.environ["PL_SEED_WORKERS"] = str(int(workers))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def reset_seed() -> None:
    """Seed every generator again as `seed_everything` did last; nothing if it was never called."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    if seed is not None:
        seed_everything(int(seed), workers=os.environ.get("PL_SEED_WORKERS") == "1", verbose=False)


def pl_worker_init_function(worker_id: int, rank: int | None = None) -> None:
    """Seed the generators of a data worker, differently in every worker of every rank.

    Args:
        worker_id: Number of the worker, as a data loader gives it to its ``worker_init_fn``.
        rank: Rank of the process that the worker belongs to; None finds it out.
    """
    # torch seeds a worker with the seed of its epoch plus its number
    base = torch.initial_seed() - worker_id
    sequence = np.random.SeedSequence([base, worker_id, process_rank() if rank is None else rank])
    of_torch, of_python, of_numpy = sequence.spawn(3)
    torch.manual_seed(int(of_torch.generate_state(1, np.uint64)[0]))
    random.seed(int.from_bytes(of_python.generate_state(4).tobytes(), "little"))
    np.random.seed(of_numpy.generate_state(4))


def collect_rng_state(include_cuda: bool = True) -> dict[str, Any]:
    """Return the state of every generator of this process as tensors and plain data.

    Args:
        include_cuda: Whether the generators of the accelerators are part of it.

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
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "pos": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if include_cuda and torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
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
def isolate_rng(include_cuda: bool = True) -> Generator[None, None, None]:
    """Put every generator back to where it stood when the block ends.

    Args:
        include_cuda: Whether that goes for the accelerators too; a forked process may not touch them.

    Examples:
        >>> import torch
        >>> from leyden.core.seeding import isolate_rng
        >>> _ = torch.manual_seed(1)
        >>> with isolate_rng():
        ...     first = torch.rand(1)
        >>> bool(first == torch.rand(1))
        True
    """
    state = collect_rng_state(include_cuda)
    try:
        yield
    finally:
        restore_rng_state(state)
