# SPDX-License-Identifier: Apache-2.0
"""What a bolt says about itself: the decorator, and the declaration that it leaves on the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from leyden.bolts.errors import BoltValueError
from leyden.core.module import LightningModule

M = TypeVar("M", bound=type[LightningModule])

ATTRIBUTE = "__bolt__"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What stands on a bolt's class.

    Attributes:
        name: The name that the entry point registers.
        task: What the model is for.
        paper: Where the method comes from, or None.
        licence: SPDX identifier of the code's licence.
        config: The dataclass that configures the model.
        summary: First line of the class's docstring.
    """

    name: str
    task: str
    paper: str | None
    licence: str
    config: type
    summary: str


def bolt(name: str, *, task: str, licence: str, config: type, paper: str | None = None) -> Callable[[M], M]:
    """Declare a `LightningModule` to be a bolt: a model system that is made by its name.

    The class takes one argument, ``config``, an instance of the config. To be found by that name it also needs an
    entry point in the group ``leyden.bolts``: ``name = "package.module:Class"``.

    Args:
        name: The name, in ``snake_case``; the same as that of the entry point.
        task: What the model is for, such as ``"image classification"``.
        licence: SPDX identifier of the code's licence.
        config: A frozen, keyword-only dataclass of plain data in which every field has a default.
        paper: Where the method comes from.

    Returns:
        The decorator. It gives the class back, with its declaration on it.

    Raises:
        BoltValueError: The name, the config or the class is not as described.

    Examples:
        >>> from dataclasses import dataclass
        >>> from leyden.bolts import bolt
        >>> from leyden.core import LightningModule
        >>> @dataclass(frozen=True, kw_only=True)
        ... class LineConfig:
        ...     lr: float = 0.1
        >>> @bolt("line", task="regression", licence="MIT", config=LineConfig)
        ... class Line(LightningModule):
        ...     '''A straight line.'''
        ...     def __init__(self, config: LineConfig):
        ...         super().__init__()
        ...         self.config = config
        >>> Line(LineConfig(lr=0.5)).config.lr
        0.5
    """
    if not name.isidentifier() or name != name.lower():
        raise BoltValueError(f"name must be in snake_case, such as 'digits_classifier'; got {name!r}")
    _check_config(name, config)

    def declare(cls: M) -> M:
        if not (isinstance(cls, type) and issubclass(cls, LightningModule)):
            raise BoltValueError(f"the bolt {name!r} must be a LightningModule class; got {cls!r}")
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        if not summary:
            raise BoltValueError(f"{cls.__qualname__} needs a docstring: its first line is the summary of {name!r}")
        declared = Declaration(name=name, task=task, paper=paper, licence=licence, config=config, summary=summary)
        setattr(cls, ATTRIBUTE, declared)
        return cls

    return declare


def declaration_of(cls: Any) -> Declaration | None:
    """Return the declaration of a bolt's class, or None: a subclass of a bolt is not the bolt."""
    found = vars(cls).get(ATTRIBUTE) if isinstance(cls, type) else None
    return found if isinstance(found, Declaration) else None


def _check_config(name: str, config: Any) -> None:
    if not (isinstance(config, type) and is_dataclass(config)):
        raise BoltValueError(f"the config of {name!r} must be a dataclass; got {config!r}")
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise BoltValueError(f"the config {config.__qualname__} must be frozen: @dataclass(frozen=True, kw_only=True)")
    wrong = [f.name for f in fields(config) if not f.kw_only or _required(f)]
    if wrong:
        raise BoltValueError(
            f"every field of the config {config.__qualname__} must be keyword-only and have a default;"
            f" {wrong[0]!r} is not so: @dataclass(frozen=True, kw_only=True)"
        )


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
