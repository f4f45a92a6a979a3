# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters of a module or data module: collected from ``__init__``, stored as plain data."""

from __future__ import annotations

import copy
import inspect
from argparse import Namespace
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import FrameType
from typing import Any

from torch import nn

from leyden.core.errors import MisconfigurationValueError, warn
from leyden.core.plain import plain_hyper_parameters


class AttributeDict(dict[str, Any]):
    """A dict whose keys are attributes too.

    Examples:
        >>> from leyden.core.hparams import AttributeDict
        >>> AttributeDict(lr=0.1).lr
        0.1
    """

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f'Missing attribute "{key}"; there are: {", ".join(map(str, self))}') from None

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

    CHECKPOINT_HYPER_PARAMS_KEY = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "hparams_type"
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
            ignore: Names to leave out, also of what a base class kept.
            frame: The frame whose arguments are meant, if it is not the caller's.
            logger: Whether loggers get the hyper-parameters.
            given_hparams: Arguments that were collected already.

        Raises:
            MisconfigurationValueError: A name is no argument of ``__init__``, an object is nothing that holds
                parameters by name, or names and objects were given at once.

        Examples:
            >>> from leyden.core import LightningModule
            >>> class Model(LightningModule):
            ...     def __init__(self, width: int, lr: float = 0.1):
            ...         super().__init__()
            ...         self.save_hyperparameters()
            >>> Model(32).hparams.lr
            0.1
        """
        self._log_hyperparams = logger
        if len(args) == 1 and not args[0]:
            return
        if frame is None:
            here = inspect.currentframe()
            frame = here.f_back if here is not None else None
        this: Any = self
        if given_hparams is not None:
            collected = dict(given_hparams)
        elif is_dataclass(this):
            collected = {f.name: getattr(this, f.name) for f in fields(this)}
        else:
            collected = _init_arguments(self, frame)
        left_out = {ignore} if isinstance(ignore, str) else set(ignore or ())
        chosen, self._hparams_name = _choose(args, collected, left_out)
        self._set_hparams(chosen)
        for name in left_out:
            self._hparams.pop(name, None)
        _, _, omitted = plain_hyper_parameters(self._hparams)
        self._hparams_initial = AttributeDict()
        for key, value in self._hparams.items():
            # what has no plain form may be a whole model, which is not worth a second one
            self._hparams_initial[key] = value if key in omitted else _copied(value)
        _warn_about_omitted(self._hparams, omitted)

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
        """The hyper-parameters as they were when they were collected."""
        return AttributeDict(getattr(self, "_hparams_initial", {}))


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - such as a tensor with a graph: kept as it is
        return value


def _choose(args: tuple[Any, ...], collected: dict[str, Any], left_out: set[str]) -> tuple[dict[str, Any], str | None]:
    """Return the meant hyper-parameters, and the argument that holds them all (``"kwargs"`` where there is none)."""
    if not args:
        kept = {k: v for k, v in collected.items() if k not in left_out}
        return kept, "kwargs" if kept else None
    if len(args) == 1 and not isinstance(args[0], str):
        return _as_mapping(args[0]), next((k for k, v in collected.items() if v is args[0]), None)
    wrong = next((a for a in args if not isinstance(a, str)), None)
    if wrong is not None:
        raise MisconfigurationValueError(
            f"save_hyperparameters takes names of arguments, or one object; got {wrong!r} among {len(args)}."
        )
    unknown = next((a for a in args if a not in collected and a not in left_out), None)
    if unknown is not None:
        near = get_close_matches(unknown, collected)
        raise MisconfigurationValueError(
            f"save_hyperparameters({unknown!r}): `__init__` has no such argument; it has {', '.join(collected)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    return {k: collected[k] for k in args if k in collected}, "kwargs"


def _as_mapping(hp: Any) -> dict[str, Any]:
    if isinstance(hp, Namespace):
        return vars(hp)
    if is_dataclass(hp) and not isinstance(hp, type):
        return {f.name: getattr(hp, f.name) for f in fields(hp)}
    if isinstance(hp, Mapping):
        return dict(hp)
    if isinstance(hp, (bool, int, float, str)):
        raise MisconfigurationValueError(
            f"Primitives {(bool, int, float, str)} are not allowed as hyper-parameters; got {hp!r}."
        )
    raise MisconfigurationValueError(
        f"Unsupported config type of {type(hp)}: hyper-parameters are a dict, Namespace or dataclass."
    )


def _init_arguments(owner: object, frame: FrameType | None) -> dict[str, Any]:
    """Collect the arguments of ``owner``'s running ``__init__``, and of those of subclasses that called it."""
    collected: dict[str, Any] = {}
    inside = False
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_name == "__init__" and code.co_argcount else None
        if first is owner:
            inside = True
            collected.update(_arguments_of(frame))
        elif inside:
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


def _warn_about_omitted(hparams: Mapping[str, Any], omitted: Mapping[str, str]) -> None:
    for name, what in omitted.items():
        if isinstance(hparams.get(name), nn.Module):
            warn(
                "LY-H001",
                f"Attribute {name!r} is an instance of `nn.Module` and is already saved during checkpointing. It is"
                f" recommended to ignore them using `self.save_hyperparameters(ignore=[{name!r}])`.",
                stacklevel=4,
            )
        else:
            warn(
                "LY-H002",
                f"Attribute {name!r} removed from hparams because it cannot be pickled as plain data ({what})."
                f" Checkpoints will not hold it: pass {name}=... to load_from_checkpoint.",
                stacklevel=4,
            )
