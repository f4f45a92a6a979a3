# SPDX-License-Identifier: Apache-2.0
"""Loggers, progress bars and monitors only watch a run: their errors are told and counted, and do not end it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import wraps
from traceback import format_exception_only
from typing import Any, TypeVar

from leyden.core.errors import LoggerError, MisconfigurationException, warn

# Failures in a row, of one hook or of all of them, after which an observer is switched off.
PATIENCE = 3
# They free what an observer holds, so that they are called also where it is switched off.
CLOSING = frozenset({"finalize", "teardown"})
WRITING = frozenset({"log_hyperparams", "log_metrics", "log_rows"})
HOW_TO_SEE = (
    "With `Trainer(strict=True)` or LEYDEN_STRICT=1 the first such error ends the run, with its whole traceback."
)
F = TypeVar("F", bound=Callable[..., Any])


class Observers:
    """What watches one run and may fail without ending it.

    Only what derives from Exception is held back, and no MisconfigurationException. Each process decides for itself:
    an observer enters no collective, so that it can fail in one process alone.

    Args:
        strict: Whether every error ends the run; nothing is wrapped then.

    Examples:
        >>> observers = Observers(strict=True)
        >>> observers.logger(None, "log_metrics", print) is print
        True
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._watches: dict[int, _Watch] = {}

    def logger(self, logger: object, hook: str, function: F) -> F:
        """Return ``function``, a method of a logger, made harmless.

        A `LoggerError` still raises as long as nothing was written: the logger could not be opened.

        Args:
            logger: Whose method it is.
            hook: Its name.
            function: The method, or what calls it.
        """
        return function if self._strict else _guarded(self._watch(logger, "logger"), hook, function)

    def callback(self, callback: object, hook: str, function: F) -> F:
        """Return ``function``, a hook of a callback, made harmless if the callback has ``observer = True``.

        Args:
            callback: Whose hook it is.
            hook: Its name.
            function: The hook, or what calls it.
        """
        if self._strict or getattr(callback, "observer", False) is not True:
            return function
        return _guarded(self._watch(callback, "callback"), hook, function)

    def close(self) -> None:
        """Tell how often who failed whose failures were not all told."""
        for watch in self._watches.values():
            if not watch.off and watch.failures > len(watch.told):
                warn(
                    "LY-W003",
                    f"{watch.name} failed {watch.failures} times in this run; the first failure of each kind was told"
                    f" when it happened. {HOW_TO_SEE}",
                )

    def _watch(self, owner: object, kind: str) -> _Watch:
        return self._watches.setdefault(id(owner), _Watch(owner, kind))


class _Watch:
    """What is known of one observer."""

    def __init__(self, owner: object, kind: str) -> None:
        self._owner = owner  # held, so that its id stays its own
        self.name = f"The {kind} `{type(owner).__name__}`"
        self.failures = 0
        self.told: set[type[Exception]] = set()
        self.off = False
        self.opened = kind != "logger"
        self.attentive = not self.opened
        self._row = 0
        self._rows: Counter[str] = Counter()

    def succeeded(self, hook: str) -> None:
        """Note a success: it ends a row of failures."""
        self.opened = self.opened or hook in WRITING
        self._row = 0
        del self._rows[hook]
        self.attentive = not self.opened or bool(self._rows)

    def failed(self, hook: str, error: Exception) -> None:
        """Tell the first failure of a kind, count every one, and switch off who fails again and again."""
        self.failures += 1
        if type(error) not in self.told or hook in CLOSING:
            self.told.add(type(error))
            text = "".join(format_exception_only(error)).strip()
            warn("LY-W001", f"{self.name} failed in `{hook}`, and the run goes on: {text}\n{HOW_TO_SEE}")
        if self.off or isinstance(error, LoggerError):
            return  # a logger that raises this has kept what it could not write, and tries again
        self.attentive = True
        self._row += 1
        self._rows[hook] += 1
        if max(self._row, self._rows[hook]) >= PATIENCE:
            self.off = True
            warn(
                "LY-W002",
                f"{self.name} failed {PATIENCE} times in a row, the last time in `{hook}`, and is switched off for the"
                f" rest of this run. {HOW_TO_SEE}",
            )


def _guarded(watch: _Watch, hook: str, function: F) -> F:
    closing = hook in CLOSING

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if watch.off and not closing:
            return None
        try:
            result = function(*args, **kwargs)
        except MisconfigurationException:
            raise
        except Exception as error:
            if isinstance(error, LoggerError) and not watch.opened and not closing:
                raise
            watch.failed(hook, error)
            return None
        if watch.attentive:
            watch.succeeded(hook)
        return result

    return run  # type: ignore[return-value]
