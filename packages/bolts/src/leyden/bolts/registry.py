# SPDX-License-Identifier: Apache-2.0
"""Bolts by name: list them, describe one, create one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint
from typing import Any

from leyden.bolts.declaration import Declaration, declaration_of
from leyden.bolts.entries import find, listed, owner
from leyden.bolts.errors import BoltValueError, BrokenBoltError
from leyden.bolts.info import ModelInfo, config_fields
from leyden.core.errors import warn
from leyden.core.module import LightningModule


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Return the names of the installed bolts.

    Nothing is imported, unless ``task`` is given: a bolt's module says what it is for. A name that two distributions
    want appears as ``distribution:name``.

    Args:
        pattern: Which names, as a shell pattern.
        task: Only bolts for this task. Bolts that can not be imported are left out, with a warning.

    Returns:
        The names, sorted.

    Examples:
        >>> from leyden.bolts import list_models
        >>> list_models("digits*", task="image classification")
        ['digits_classifier']
    """
    names = sorted(name for name in listed() if fnmatchcase(name, pattern))
    if task is None:
        return names
    return [name for name in names if _task_of(name) == task]


def describe(name: str) -> ModelInfo:
    """Return what a bolt says about itself.

    Args:
        name: One of `list_models`, or ``distribution:name``.

    Returns:
        Summary, task, paper, licence, config and origin. Of a bolt that can not be imported, the reason.

    Raises:
        BoltValueError: Nothing has this name; the message names the nearest ones.
        BoltError: Several distributions register it; the message names them.

    Examples:
        >>> from leyden.bolts import describe
        >>> describe("digits_classifier").config[0]
        ConfigField(name='width', type='int', default=32)
    """
    entry = find(name)
    version = entry.dist.version if entry.dist is not None else ""
    info = ModelInfo(name=name, distribution=owner(entry), version=version, target=entry.value)
    try:
        _, declared = _load(entry)
    except BrokenBoltError as error:
        return replace(info, broken=str(error))
    return replace(
        info,
        summary=declared.summary,
        task=declared.task,
        paper=declared.paper,
        licence=declared.licence,
        config=config_fields(declared),
    )


def create_model(
    name: str, *, pretrained: bool = False, config: object | Mapping[str, Any] | None = None, **overrides: Any
) -> LightningModule:
    """Make a model by its name.

    Args:
        name: One of `list_models`, or ``distribution:name``.
        pretrained: Only False: no bolt has weights yet.
        config: The bolt's config: an instance, or its fields as a mapping. None takes the defaults.
        **overrides: Fields of the config that are to be different.

    Returns:
        A new model with random weights.

    Raises:
        BoltValueError: Nothing has this name, or the config does not take a field or value, or weights were asked for.
        BoltError: Several distributions register the name; the message names them.
        BrokenBoltError: The bolt can not be imported.

    Examples:
        >>> from leyden.bolts import create_model
        >>> model = create_model("digits_classifier", width=8)
        >>> model.config.width, model.config.dropout
        (8, 0.3)
    """
    entry = find(name)
    if pretrained is not False:
        raise BoltValueError(
            f"{name!r} has no weights yet, so pretrained must be False; got {pretrained!r}. Train the model and take"
            " its weights from the checkpoint: type(model).load_from_checkpoint(path)"
        )
    cls, declared = _load(entry)
    model: LightningModule = cls(_configured(declared, config, overrides))
    return model


def _load(entry: EntryPoint) -> tuple[Any, Declaration]:
    """Import a bolt's class, and check that it is what its entry point says."""
    place = f"{entry.name!r} of {owner(entry)}"
    try:
        cls = entry.load()
    except (Exception, SystemExit) as error:  # a plug-in's module may do anything when it is imported
        raise BrokenBoltError(
            f"{place} can not be imported from {entry.value}: {type(error).__name__}: {error}"
        ) from error
    declared = declaration_of(cls)
    if declared is None:
        raise BrokenBoltError(f"{place} points to {entry.value}, which is not declared with @bolt")
    if declared.name != entry.name:
        raise BrokenBoltError(f"{place} points to {entry.value}, which @bolt declares to be {declared.name!r}")
    return cls, declared


def _task_of(name: str) -> str | None:
    info = describe(name)
    if info.broken is not None:
        warn("LY-R001", f"left out of the list of models: {info.broken}", stacklevel=4)
        return None
    return info.task


def _configured(declared: Declaration, config: Any, overrides: Mapping[str, Any]) -> Any:
    """Return the bolt's config: what was given, else the defaults, with the overrides."""
    base: Any = config if type(config) is declared.config else declared.config()
    if not (config is None or config is base or isinstance(config, Mapping)):
        raise BoltValueError(
            f"config must be a {declared.config.__qualname__} or a mapping of its fields; got {config!r}"
        )
    given = {**config, **overrides} if isinstance(config, Mapping) else overrides
    names = [field.name for field in fields(declared.config)]
    for name in given:
        if name not in names:
            near = get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise BoltValueError(f"{name!r} is no field of {declared.config.__qualname__}: {hint}")
    return replace(base, **given)
