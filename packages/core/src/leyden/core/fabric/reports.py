# SPDX-License-Identifier: Apache-2.0
"""What a loop of the user's own tells callbacks and loggers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from leyden.core.errors import MisconfigurationValueError, warn
from leyden.core.fabric.processes import Processes
from leyden.core.strategies.strategy import Strategy


class Reports(Processes):
    """What `Fabric` tells callbacks and loggers.

    Args:
        strategy: How the run spreads over devices.
        callbacks: One object or several.
        loggers: One logger or several.
    """

    def __init__(self, strategy: Strategy, callbacks: Any = None, loggers: Any = None) -> None:
        super().__init__(strategy)
        self._callbacks: list[Any] = _listed(callbacks)
        self._loggers: list[Any] = _listed(loggers)

    @property
    def loggers(self) -> list[Any]:
        """All loggers."""
        return self._loggers

    @property
    def logger(self) -> Any:
        """The first logger.

        Raises:
            IndexError: There is none.
        """
        return self._loggers[0]

    def call(self, hook_name: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of every callback that has it.

        Args:
            hook_name: The method's name.
            *args: Its arguments.
            **kwargs: Its arguments by name; those that a callback's method does not take are left out.
        """
        for callback in self._callbacks:
            method = getattr(callback, hook_name, None)
            if method is None:
                continue
            if not callable(method):
                warn(
                    "LY-F002",
                    f"Skipping the callback `{type(callback).__name__}.{hook_name}` because it is not callable.",
                )
                continue
            method(*args, **_taken(method, kwargs))

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Give every logger a value, in the first process.

        Args:
            name: The value's name.
            value: A number or a tensor with one element.
            step: Position on the x axis; None means one after the last.

        Raises:
            ValueError: The value is a tensor with another number of elements.
        """
        self.log_dict({name: value}, step)

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Give every logger several values, in the first process.

        Args:
            metrics: Numbers and tensors with one element, by name.
            step: Position on the x axis; None means one after the last.

        Raises:
            ValueError: A value is a tensor with another number of elements.
        """
        for name, value in metrics.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise MisconfigurationValueError(
                    f"The metric `{name}` does not contain a single element, thus it cannot be logged; its shape is"
                    f" {tuple(value.shape)}."
                )
        if self.is_global_zero:
            values = {name: v.detach() if isinstance(v, Tensor) else v for name, v in metrics.items()}
            for logger in self._loggers:
                logger.log_metrics(metrics=values, step=step)


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _taken(method: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a method takes by name."""
    try:
        parameters = inspect.signature(method).parameters
    except (ValueError, TypeError):
        return kwargs
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return kwargs
    return {name: value for name, value in kwargs.items() if name in parameters}
