# SPDX-License-Identifier: Apache-2.0
"""What `describe` answers with."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from leyden.bolts.declaration import Declaration


@dataclass(frozen=True)
class ConfigField:
    """One field of a bolt's config.

    Attributes:
        name: The name, which `create_model` takes as a keyword.
        type: The annotation, as text.
        default: The value that the field has if nothing else is said.
    """

    name: str
    type: str
    default: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.type} = {self.default!r}"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A bolt as its entry point and its declaration show it.

    Attributes:
        name: The name to give to `create_model`.
        distribution: The installed distribution that registers it.
        version: The distribution's version.
        target: What the entry point points to, as ``package.module:Class``.
        summary: What it is, in one line.
        task: What it is for.
        paper: Where the method comes from, or None.
        licence: SPDX identifier of the code's licence.
        config: The fields of its config.
        broken: Why it can not be used; None if it can. A broken bolt has no summary, task, licence or config.

    Examples:
        >>> from leyden.bolts import describe
        >>> info = describe("digits_classifier")
        >>> info.task, info.distribution, info.broken
        ('image classification', 'leyden-bolts', None)
    """

    name: str
    distribution: str
    version: str
    target: str
    summary: str = ""
    task: str = ""
    paper: str | None = None
    licence: str = ""
    config: tuple[ConfigField, ...] = ()
    broken: str | None = None

    def __str__(self) -> str:
        head = f"{self.name} ({self.distribution} {self.version})"
        if self.broken is not None:
            return f"{head}: broken: {self.broken}"
        lines = [f"{head}: {self.summary}", f"  task     {self.task}", f"  licence  {self.licence}"]
        lines += [f"  paper    {self.paper}"] if self.paper else []
        return "\n".join(lines + [f"  config   {field}" for field in self.config])


def config_fields(declared: Declaration) -> tuple[ConfigField, ...]:
    """Return the fields of a bolt's config with their defaults."""
    return tuple(
        ConfigField(
            field.name,
            field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type)),
            field.default if field.default_factory is MISSING else field.default_factory(),
        )
        for field in fields(declared.config)
    )
