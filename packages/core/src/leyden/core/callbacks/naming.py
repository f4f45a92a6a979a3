# SPDX-License-Identifier: Apache-2.0
"""Names of checkpoint files and of their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from leyden.core.errors import MisconfigurationValueError
from leyden.core.interfaces import LoggerLike


def format_name(
    pattern: str,
    values: Mapping[str, Any],
    *,
    prefix: str = "",
    insert_names: bool = True,
    join: str = "-",
    equals: str = "=",
) -> str:
    """Fill a pattern such as ``"{epoch}-{val_loss:.2f}"``.

    Args:
        pattern: Text with names of values in braces, each with an optional format.
        values: The values; one that is missing counts as 0.
        prefix: Put in front, joined by ``join``.
        insert_names: Whether ``{epoch}`` becomes ``epoch=3`` instead of ``3``.
        join: Between prefix and name.
        equals: Between name and value.

    Returns:
        The name, without the ending.

    Raises:
        MisconfigurationValueError: A format does not fit its value.

    Examples:
        >>> from leyden.core.callbacks.naming import format_name
        >>> format_name("{epoch}-{val_loss:.2f}", {"epoch": 3, "val_loss": 0.125})
        'epoch=3-val_loss=0.12'
    """

    def fill(match: re.Match[str]) -> str:
        name, spec = match.group(1), match.group(2) or ""
        value = values.get(name, 0)
        number = value.item() if isinstance(value, torch.Tensor) else value
        try:
            text = format(number, spec[1:]) if spec else str(number)
        except ValueError as error:
            raise MisconfigurationValueError(
                f"the file name pattern {pattern!r} has a format that does not fit {name}={number!r}: {error}."
            ) from error
        return f"{name}{equals}{text}" if insert_names else text

    name = re.sub(r"\{([^{}:]*)(:[^{}]*)?\}", fill, pattern)
    return join.join([prefix, name]) if prefix else name


def folder_of_run(loggers: Sequence[LoggerLike], root: str | os.PathLike[str]) -> Path:
    """Return the folder of a run's checkpoints: that of the first logger's version, or ``root`` without a logger."""
    if not loggers:
        return Path(root) / "checkpoints"
    first = loggers[0]
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    return Path(first.save_dir if first.save_dir is not None else root) / str(first.name) / version / "checkpoints"
