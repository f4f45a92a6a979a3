# SPDX-License-Identifier: Apache-2.0
"""A module from a checkpoint: its hyper-parameters and its weights, without its run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import IO, Any, TypeVar

from leyden.core.checkpoint import file
from leyden.core.errors import CheckpointError
from leyden.core.hparams import AttributeDict
from leyden.core.plain import rebuild_for, rebuild_whole

M = TypeVar("M")


def load_module(
    cls: type[M],
    path: str | Path | IO[bytes],
    *,
    map_location: Any = None,
    strict: bool | None = None,
    trust: bool = False,
    overrides: dict[str, Any] | None = None,
) -> M:
    """Build ``cls`` from a checkpoint. See `LightningModule.load_from_checkpoint`."""
    checkpoint = file.load(Path(path), map_location, trust=trust)  # type: ignore[arg-type]
    module: Any = cls(**arguments_for(cls, checkpoint, overrides or {}, Path(path)))  # type: ignore[arg-type]
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading if strict is None else strict)
    loaded: M = module
    return loaded


def arguments_for(cls: type, checkpoint: dict[str, Any], overrides: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments of ``cls.__init__``: the stored hyper-parameters, completed and overridden.

    Raises:
        CheckpointError: An argument without a default was not stored and is not given.
    """
    own = checkpoint.get("leyden", {})
    stored = {k: v for k, v in checkpoint.get("hyper_parameters", {}).items() if k not in overrides}
    types: dict[str, str] = own.get("hparams_types", {})
    omitted: dict[str, str] = own.get("hparams_omitted", {})
    holder = checkpoint.get("hparams_name", "kwargs")
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if holder not in (None, "kwargs") and holder in parameters and holder not in overrides:
        inside = {k: v for k, v in overrides.items() if k not in parameters}
        missing = [n for n in omitted if n not in inside]
        whole = None if missing else rebuild_whole(cls, holder, stored, types, inside)
        arguments: dict[str, Any] = {holder: AttributeDict(whole) if isinstance(whole, dict) else whole}
        arguments |= {k: v for k, v in overrides.items() if k in parameters}
    else:
        taken = {k: v for k, v in stored.items() if takes_any or k in parameters}
        arguments = {
            **rebuild_for(cls, taken, types),
            **{k: v for k, v in overrides.items() if takes_any or k in parameters},
        }
        needed = [n for n in omitted if n in parameters and parameters[n].default is inspect.Parameter.empty]
        missing = [n for n in needed if n not in arguments]
    if missing:
        name = missing[0]
        raise CheckpointError(
            f"{path} does not hold the hyper-parameter {name!r}: it was a {omitted[name]}, which has no plain form."
            " Pass it:"
            f" {cls.__name__}.load_from_checkpoint(path, {name}=...)."
        )
    return arguments
