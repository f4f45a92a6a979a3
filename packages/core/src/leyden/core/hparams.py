# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters of a module or data module: collected from ``__init__``, stored as plain data."""

from __future__ import annotations

import copy
import inspect
from argparse import Namespace
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from types import FrameType
from typing import Any

from torch import nn

from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError, warn
from leyden.core.plain import plain_hyper_parameters


class AttributeDict(dict[str, Any]):
    """A dict whose keys are attributes too.

    Example:
        >>> from leyden.core.hparams import AttributeDict
        >>> AttributeDict(lr=0.1).lr
        0.1
    """

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(f'Missing attribute "{key}"') from error

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __delattr__(self, key: str) -> None:
        if key not in self:
            raise AttributeError(f'Missing attribute "{key}"')
        del self[key]

    def __repr__(self) -> str:
        if not self:
            return ""
        width = max(len(str(k)) for k in self) + 3
        return "\n".join(f'"{k}":'.ljust(width) + f" {v}" for k, v in self.items())


class HyperparametersMixin:
    """Gives a class `save_hyperparameters` and `hparams`."""

    _log_hyperparams = False
    _hparams_name: str | None = None

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
        given_hparams: dict[str, Any] | None = None,
    ) -> None:
        """Keep arguments of ``__init__`` as `hparams`, in the checkpoint and in the loggers.

        Call it inside ``__init__``. What has no plain form (a module, a function) stays in `hparams` but is not stored
        in checkpoints: a warning names it now, and ``load_from_checkpoint`` asks for it by name later.

        Args:
            *args: Nothing for all arguments, names of some, or one object (dict, namespace, dataclass) that holds all.
            ignore: Names to leave out.
            frame: The frame whose arguments are meant, if it is not the caller's.
            logger: Whether loggers get the hyper-parameters.
            given_hparams: Arguments that were collected already.

        Raises:
            MisconfigurationTypeError: An argument is neither a name nor an object that holds parameters.

        Example:
            >>> from leyden.core import LightningModule
            >>> class Model(LightningModule):
            ...     def __init__(self, width: int, lr: float = 0.1):
            ...         super().__init__()
            ...         self.save_hyperparameters()
            >>> Model(32).hparams.lr
            0.1
        """
        self._log_hyperparams = logger
        if frame is None:
            here = inspect.currentframe()
            frame = here.f_back if here is not None else None
        this: Any = self
        if is_dataclass(this) and not args:
            collected = {f.name: getattr(this, f.name) for f in fields(this)}
        else:
            collected = dict(given_hparams) if given_hparams is not None else _init_arguments(frame)
        left_out = {ignore} if isinstance(ignore, str) else set(ignore or ())
        name: str | None = "kwargs"
        if not args:
            chosen: Any = {k: v for k, v in collected.items() if k not in left_out}
        elif len(args) == 1 and not isinstance(args[0], str):
            chosen = args[0]
            name = next((k for k, v in collected.items() if v is chosen), None)
        else:
            wrong = [a for a in args if not isinstance(a, str)]
            if wrong:
                raise MisconfigurationTypeError(
                    f"save_hyperparameters takes names of arguments, or one object; got {wrong[0]!r} among {len(args)}."
                )
            chosen = {k: collected[k] for k in args if k in collected and k not in left_out}
        self._set_hparams(chosen)
        self._hparams_name = name
        self._hparams_initial = copy.copy(self._hparams)
        for key, value in self._hparams.items():
            try:
                self._hparams_initial[key] = copy.deepcopy(value)
            except Exception:  # noqa: BLE001 - a value that can not be copied is kept as it is
                self._hparams_initial[key] = value
        _warn_about_omitted(self._hparams)

    def _set_hparams(self, hp: MutableMapping[str, Any] | Namespace | object) -> None:
        given = _as_mapping(hp)
        if not isinstance(getattr(self, "_hparams", None), AttributeDict):
            self._hparams = AttributeDict()
        self._hparams.update(given)

    @property
    def hparams(self) -> AttributeDict:
        """The collected hyper-parameters: a dict with attributes. Changes are seen by later checkpoints."""
        if not hasattr(self, "_hparams"):
            self._hparams = AttributeDict()
        return self._hparams

    @property
    def hparams_initial(self) -> AttributeDict:
        """A copy of the hyper-parameters as they were when they were collected."""
        return copy.deepcopy(self._hparams_initial) if hasattr(self, "_hparams_initial") else AttributeDict()


def _as_mapping(hp: Any) -> dict[str, Any]:
    if isinstance(hp, Namespace):
        return vars(hp)
    if is_dataclass(hp) and not isinstance(hp, type):
        return {f.name: getattr(hp, f.name) for f in fields(hp)}
    if isinstance(hp, Mapping):
        return dict(hp)
    if isinstance(hp, (bool, int, float, str, list, tuple)):
        raise MisconfigurationException(
            f"Primitives {(bool, int, float, str)} are not allowed as hyper-parameters; got {hp!r}."
        )
    raise MisconfigurationException(
        f"Unsupported config type of {type(hp)}: hyper-parameters are a dict, Namespace or dataclass."
    )


def _init_arguments(frame: FrameType | None) -> dict[str, Any]:
    """Collect the arguments of the ``__init__`` in ``frame`` and of the subclasses' ``__init__`` that called it."""
    collected: dict[str, Any] = {}
    owner: Any = None
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_name == "__init__" and code.co_argcount else None
        if isinstance(first, HyperparametersMixin) and owner in (None, first):
            owner = first
            collected.update(_arguments_of(frame))
        elif owner is not None:
            break
        frame = frame.f_back
    return collected


def _arguments_of(frame: FrameType) -> dict[str, Any]:
    code, local = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[:count]
    arguments = {n: local[n] for n in names[1:] if n in local}
    position = count + bool(code.co_flags & inspect.CO_VARARGS)
    if code.co_flags & inspect.CO_VARKEYWORDS:
        arguments |= local.get(code.co_varnames[position], {})
    return arguments


def _warn_about_omitted(hparams: Mapping[str, Any]) -> None:
    _, _, omitted = plain_hyper_parameters(hparams)
    for name, what in omitted.items():
        if isinstance(hparams[name], nn.Module):
            warn(
                "LY-H001",
                f"Attribute {name!r} is an instance of `nn.Module` and is already saved during checkpointing. It is"
                " recommended"
                f" to ignore them using `self.save_hyperparameters(ignore=[{name!r}])`.",
                stacklevel=4,
            )
        else:
            warn(
                "LY-H002",
                f"attribute {name!r} removed from hparams because it cannot be pickled as plain data ({what})."
                " Checkpoints"
                f" will not hold it: pass {name}=... to load_from_checkpoint.",
                stacklevel=4,
            )
