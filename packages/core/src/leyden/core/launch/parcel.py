# SPDX-License-Identifier: Apache-2.0
"""What goes from one process to another through a file: work, results and errors."""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch

from leyden.core.errors import MisconfigurationTypeError, RankFailedError


@dataclass
class Word:
    """What a process says of its failure.

    Attributes:
        text: The traceback.
        time_ns: When.
        kind: The exception's type, by name.
        packed: The exception itself, or None if it can not be packed.
    """

    text: str
    time_ns: int
    kind: str
    packed: bytes | None


def write(obj: Any, path: Path, what: str) -> None:
    """Write an object for another process.

    Args:
        obj: The object. Tensors in it are written by value.
        path: The file, which appears when it is complete.
        what: What the object is, for the error message.

    Raises:
        MisconfigurationTypeError: It can not be packed.
    """
    draft = path.with_suffix(".draft")
    try:
        # torch's own format, because a plain pickle does not hold every kind of tensor; and what cloudpickle packs may
        # be defined at a prompt or inside a function
        torch.save(obj, draft, pickle_module=cloudpickle)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise MisconfigurationTypeError(
            f"The processes get copies, but {what} can not be pickled: {error}. Make open files, locks and connections"
            " where they are used, not before. A script that is started with `python script.py` needs no copies."
        ) from error
    draft.replace(path)


def read(path: Path) -> Any:
    """Read what another process of this run has written; tensors come onto the CPU."""
    return torch.load(path, map_location="cpu", weights_only=False)


def run(work: Callable[[], tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]], folder: Path, rank: int) -> int:
    """Run a function as one of several processes, and leave its result or its error in a file.

    Args:
        work: Brings the function and its arguments.
        folder: Where to leave it.
        rank: The number of this process.

    Returns:
        The exit code.
    """
    try:
        function, args, kwargs = work()
        result = function(*args, **kwargs)
        write(result if rank == 0 else None, folder / f"result-{rank}", what="what the function returned")
    except BaseException as error:
        sys.stdout.flush()
        word = Word("".join(traceback.format_exception(error)), time.time_ns(), type(error).__name__, _packed(error))
        if isinstance(error, SystemExit) and type(error) is SystemExit:
            raise
        write(word, folder / f"error-{rank}", what="the error")
        sys.last_value = error  # as after any uncaught error: what ends the process need not wait for the others
        return 1
    return 0


def _packed(error: BaseException) -> bytes | None:
    try:
        packed: bytes = cloudpickle.dumps(error)
        pickle.loads(packed)  # noqa: S301 - what this process has just packed
    except Exception:  # noqa: BLE001 - an exception may break in any way when it is copied
        return None
    return packed


def error_of(word: Word, rank: int) -> BaseException:
    """Return the exception that a process raised, with the traceback that it had there as a note."""
    note = f"Traceback of rank {rank}:\n{word.text}"
    if word.packed is None:
        return RankFailedError(f"Rank {rank} raised {word.kind}, which can not be copied.\n\n{note}")
    error: BaseException = pickle.loads(word.packed)  # noqa: S301 - a process of this run packed it
    error.add_note(note)
    return error
