# SPDX-License-Identifier: Apache-2.0
"""Flags from elsewhere: environment variables, and the spellings of the 1.0 API."""

from __future__ import annotations

import ast
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

from leyden.core.callbacks.early_stopping import EarlyStopping
from leyden.core.callbacks.model_checkpoint import ModelCheckpoint
from leyden.core.callbacks.progress.tqdm_progress import TQDMProgressBar
from leyden.core.callbacks.summary import ModelSummary
from leyden.core.errors import LightningDeprecationWarning, MisconfigurationTypeError, warn

Init = TypeVar("Init", bound=Callable[..., None])
PREFIXES = ("LEYDEN_TRAINER_", "PL_TRAINER_")
OLD = (
    *("gpus", "tpu_cores", "distributed_backend", "checkpoint_callback", "early_stop_callback"),
    *("progress_bar_refresh_rate", "weights_summary", "resume_from_checkpoint", "automatic_optimization"),
)


def from_elsewhere(init: Init) -> Init:
    """Let an ``__init__`` take its defaults from the environment, and understand old names of its arguments.

    ``LEYDEN_TRAINER_<FLAG>``, else ``PL_TRAINER_<FLAG>``, stands in for a flag that is not given.
    """
    names = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def understanding(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise MisconfigurationTypeError(
                f"Trainer takes its flags by name only; got {len(args)} positional: {args[0]!r}."
            )
        later = translate(kwargs)
        unknown = [name for name in kwargs if name not in names]
        if unknown:
            raise TypeError(
                f"Trainer.__init__() got an unexpected keyword argument {unknown[0]!r}{_near(unknown[0], names)}"
            )
        for name in names:
            if name not in kwargs:
                text = next((os.environ[p + name.upper()] for p in PREFIXES if p + name.upper() in os.environ), None)
                if text is not None:
                    kwargs[name] = _parsed(text)
        init(self, **kwargs)
        for name, value in later.items():
            setattr(self, name, value)

    return understanding  # type: ignore[return-value]


def _near(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, names)
    return f"; did you mean {near[0]!r}?" if near else ""


def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _told(old: str, new: str) -> None:
    warn(
        "LY-T010",
        f"Trainer({old}=...) is a spelling of the 1.0 API that still works; today it is {new}.",
        LightningDeprecationWarning,
        stacklevel=5,
    )


def translate(flags: dict[str, Any]) -> dict[str, Any]:
    """Replace old names in ``flags`` by today's, with one warning each.

    Args:
        flags: The arguments, changed in place.

    Returns:
        Attributes to set on the trainer once it is made.
    """
    later: dict[str, Any] = {}
    found = [name for name in OLD if name in flags]
    if not found:
        return later
    given = flags.get("callbacks") or []
    callbacks: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    before = len(callbacks)
    for old in found:
        value = flags.pop(old)
        if old in ("gpus", "tpu_cores"):
            kind = "gpu" if old == "gpus" else "tpu"
            _told(old, f"accelerator={kind!r}, devices=...")
            if value not in (None, 0, "0", []):
                flags.update(accelerator=kind, devices=value)
        elif old == "distributed_backend":
            _told(old, "strategy=...")
            if value is not None:
                flags["strategy"] = value
        elif old == "checkpoint_callback":
            _told(old, "enable_checkpointing=... or a ModelCheckpoint among callbacks")
            if isinstance(value, ModelCheckpoint):
                callbacks.append(value)
            else:
                flags["enable_checkpointing"] = bool(value)
        elif old == "early_stop_callback":
            _told(old, "an EarlyStopping among callbacks")
            if value:
                callbacks.append(EarlyStopping("early_stop_on", strict=False) if value is True else value)
        elif old == "progress_bar_refresh_rate":
            _told(old, "a TQDMProgressBar(refresh_rate=...) among callbacks, or enable_progress_bar=False")
            if value == 0:
                flags["enable_progress_bar"] = False
            elif value is not None:
                callbacks.append(TQDMProgressBar(refresh_rate=value))
        elif old == "weights_summary":
            _told(old, "a ModelSummary(max_depth=...) among callbacks, or enable_model_summary=False")
            if value is None:
                flags["enable_model_summary"] = False
            else:
                callbacks.append(ModelSummary(max_depth=-1 if value == "full" else 1))
        elif old == "resume_from_checkpoint":
            _told(old, "fit(ckpt_path=...)")
            later["_resume_from"] = value
        else:
            _told(old, "`self.automatic_optimization = ...` in the module")
            later["_automatic_optimization"] = bool(value)
    if len(callbacks) > before:
        flags["callbacks"] = callbacks
    return later
