# SPDX-License-Identifier: Apache-2.0
"""LambdaCallback: hooks given as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leyden.core.callback import Callback
from leyden.core.errors import MisconfigurationTypeError

_HOOKS = sorted(name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown"))


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        **hooks: Functions by the names of the hooks they are for, with the hooks' arguments: the trainer, the module,
            and what else the hook gets. None leaves a hook alone.

    Raises:
        MisconfigurationTypeError: There is no hook of that name, or its value can not be called.

    Examples:
        >>> from leyden.core.callbacks import LambdaCallback
        >>> callback = LambdaCallback(on_train_start=lambda trainer, pl_module: print("training"))
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in _HOOKS:
                raise MisconfigurationTypeError(
                    f"LambdaCallback() got an unexpected keyword argument {name!r}; the hooks are {', '.join(_HOOKS)}."
                )
            if function is None:
                continue
            if not callable(function):
                raise MisconfigurationTypeError(f"`{name}` must be a function; got {function!r}.")
            setattr(self, name, function)
