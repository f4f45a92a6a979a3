# SPDX-License-Identifier: Apache-2.0
"""A module from a checkpoint: its hyper-parameters and its weights, without its run."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from leyden.core.checkpoint import file, sharded
from leyden.core.checkpoint.hparams_file import load_hparams_file
from leyden.core.errors import CheckpointError, MisconfigurationValueError, warn
from leyden.core.hparams import AttributeDict
from leyden.core.plain import rebuild_for, rebuild_whole

M = TypeVar("M")
PathLike = str | os.PathLike[str]

if TYPE_CHECKING:

    def on_class_only(method: M) -> M:
        """See below: checkers need not know."""
        return method

else:

    class on_class_only:  # noqa: N801 - a decorator
        """Lets a class method refuse to be called on an instance, where its result would be thrown away."""

        def __init__(self, method: classmethod) -> None:
            self.method = method

        def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
            """Return the method, or for an instance what says that there is none."""
            bound = self.method.__get__(None, owner or type(instance))
            if instance is None:
                return bound

            @functools.wraps(bound)
            def refuse(*args: Any, **kwargs: Any) -> None:
                name = f"{type(instance).__name__}.{bound.__name__}"
                raise TypeError(
                    f"The classmethod `{name}` cannot be called on an instance. Please call it on the class type and"
                    " make sure the return value is used."
                )

            return refuse


def load_module(
    cls: type[M],
    path: PathLike | IO[bytes],
    *,
    map_location: Any = None,
    hparams_file: PathLike | None = None,
    strict: bool | None = None,
    trust: bool = False,
    overrides: dict[str, Any] | None = None,
) -> M:
    """Build ``cls`` from a checkpoint. See `LightningModule.load_from_checkpoint`."""
    checkpoint = read(path, map_location, trust=trust)
    if hparams_file is not None:
        use_hparams_file(checkpoint, hparams_file)
    module: Any = cls(**arguments_for(cls, checkpoint, overrides or {}, path))
    own = module._strict_loading
    if own is not None and strict is not None and strict != own:
        raise MisconfigurationValueError(
            f"You set `.load_from_checkpoint(..., strict={strict})` which is in conflict with"
            f" `{cls.__name__}.strict_loading={own}`. Please set the same value for both of them."
        )
    module.configure_model()
    module.on_load_checkpoint(checkpoint)
    load_weights(module, checkpoint["state_dict"], strict=module.strict_loading if strict is None else strict)
    if not checkpoint["state_dict"]:
        warn("LY-C005", f"The state dict in {str(path)!r} contains no parameters.")
    loaded: M = module
    first = next((v for v in checkpoint["state_dict"].values() if isinstance(v, Tensor)), None)
    return loaded if first is None else module.to(first.device)


def load_weights(module: torch.nn.Module, weights: dict[str, Any], *, strict: bool) -> None:
    """Load weights, and say what was left out where that is allowed."""
    keys = module.load_state_dict(weights, strict=strict)
    if strict or keys is None:
        return
    if keys.missing_keys:
        warn(
            "LY-C006",
            f"Found keys that are in the model state dict but not in the checkpoint: {keys.missing_keys}",
        )
    if keys.unexpected_keys:
        warn(
            "LY-C007",
            f"Found keys that are not in the model state dict but in the checkpoint: {keys.unexpected_keys}",
        )


def read(path: PathLike | IO[bytes], map_location: Any = None, *, trust: bool = False) -> dict[str, Any]:
    """Read a checkpoint by its path or from an open file; what was on a device that is not there comes to the CPU."""
    if map_location is None and not torch.cuda.is_available():
        map_location = "cpu"
    if isinstance(path, (str, os.PathLike)):
        return sharded.load(path, map_location, trust=trust)
    return file.load(path, map_location, trust=trust)


def use_hparams_file(checkpoint: dict[str, Any], path: PathLike) -> None:
    """Put the hyper-parameters of a file in the place of the stored ones."""
    checkpoint["hyper_parameters"] = load_hparams_file(path)
    own = checkpoint.get("leyden", {})
    own.pop("hparams_types", None)
    omitted = own.get("hparams_omitted", {})
    own["hparams_omitted"] = {k: what for k, what in omitted.items() if k not in checkpoint["hyper_parameters"]}


def arguments_for(cls: type, checkpoint: dict[str, Any], overrides: dict[str, Any], path: Any) -> dict[str, Any]:
    """Return the arguments of ``cls.__init__``: the stored hyper-parameters, completed and overridden.

    Raises:
        CheckpointError: An argument without a default was not stored and is not given.
    """
    own = checkpoint.get("leyden", {})
    # the first two are what releases before 1.0 wrote
    places = ("hparams", "module_arguments", "hyper_parameters")
    stored = {k: v for place in places for k, v in checkpoint.get(place, {}).items() if k not in overrides}
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
