# SPDX-License-Identifier: Apache-2.0
"""A logger by its short name, and the one that a run gets when nothing was asked for."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, MissingExtraError
from leyden.core.loggers.csv_logs import CSVLogger
from leyden.core.loggers.dummy import DummyLogger
from leyden.core.loggers.logger import Logger

GROUP = "leyden.loggers"
OWN: dict[str, type[Logger]] = {"csv": CSVLogger, "dummy": DummyLogger}


def find_logger(name: str) -> type[Logger]:
    """Return a logger's class by its short name. No client is imported.

    Args:
        name: ``"csv"``, or a name that an installed distribution registers in the entry point group ``leyden.loggers``.

    Returns:
        The class.

    Raises:
        MisconfigurationValueError: If no logger has this name; the message lists those that exist.
        MisconfigurationException: If two distributions register the name.

    Examples:
        >>> find_logger("csv").__name__
        'CSVLogger'
    """
    key = name.lower()
    if key in OWN:
        return OWN[key]
    found = _registered().get(key, [])
    if not found:
        known = ", ".join(sorted({*OWN, *_registered()}))
        raise MisconfigurationValueError(
            f"logger must be one of {known}; got {name!r}. Services come with the package leyden-loggers"
        )
    if len(found) > 1:
        owners = " and ".join(sorted(entry.dist.name if entry.dist else "an unknown package" for entry in found))
        raise MisconfigurationException(
            f"logger {name!r} is registered by {owners}: uninstall one, or pass an instance"
        )
    loaded: type[Logger] = found[0].load()
    return loaded


def default_logger(save_dir: str | os.PathLike[str], **options: Any) -> Logger:
    """Return the logger of a run that asked for none: TensorBoard if it is installed, else CSV.

    Args:
        save_dir: Root folder of the logger's files.
        **options: Further arguments that both take: ``name``, ``version``, ``prefix``.

    Returns:
        A new logger.

    Examples:
        >>> default_logger("logs", name="digits", version=3).log_dir
        'logs/digits/version_3'
    """
    if "tensorboard" in _registered():
        kind: Any = find_logger("tensorboard")
        if not missing(kind):
            logger: Logger = kind(save_dir, **options)
            return logger
    return CSVLogger(save_dir, **options)


def missing(kind: type[Logger]) -> list[str]:
    """Return the modules that a logger's class names in ``requires`` and that are not installed, without importing any.

    Args:
        kind: The class.
    """
    return [module for module in getattr(kind, "requires", ()) if not _installed(module)]


def require(kind: type[Logger], install: str) -> None:
    """Raise if something that a logger's class names in ``requires`` is not installed.

    Args:
        kind: The class.
        install: The command that installs it.

    Raises:
        MissingExtraError: If something is missing.
    """
    absent = missing(kind)
    if absent:
        message = f"{kind.__name__} needs {', '.join(absent)}, not installed here: {install}"
        raise MissingExtraError(message, name=absent[0])


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _registered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        same = found.setdefault(entry.name.lower(), [])
        # An editable install and its source folder on the path show one distribution twice.
        if all(entry.value != other.value for other in same):
            same.append(entry)
    return found
