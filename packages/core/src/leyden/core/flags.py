# SPDX-License-Identifier: Apache-2.0
"""The Trainer's flags, checked at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from leyden.core.duration import UNITS, Duration
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    NotYetSupported,
    PossibleUserWarning,
    warn,
)
from leyden.core.strategies.choice import choose_strategy
from leyden.core.strategies.strategy import Strategy

_COMPILE = ("fullgraph", "dynamic", "backend", "mode", "options", "disable")
# the unit that a flag counts in, so that a text such as "10ep" can stand for its number
_COUNTS = {
    "max_epochs": "ep", "min_epochs": "ep", "check_val_every_n_epoch": "ep", "reload_dataloaders_every_n_epochs": "ep",
    "max_steps": "st", "min_steps": "st", "log_every_n_steps": "st",
    "accumulate_grad_batches": "ba", "num_sanity_val_steps": "ba",
}  # fmt: skip
_SHARES = (
    *(f"limit_{kind}_batches" for kind in ("train", "val", "test", "predict")),
    *("overfit_batches", "val_check_interval"),
)
_BETTER = {"ep": "`max_epochs`", "st": "`max_steps`", "s": "`max_time`"}


@dataclass(kw_only=True, slots=True)
class Flags:
    """Every flag by its name on `Trainer`, where they are described. Wrong values raise, naming the flag.

    A text with a unit, such as ``"10ep"``, stands for its number; afterwards the flag holds the number.

    Attributes:
        engine: The strategy that the flags ask for, with its device and its number format.

    Examples:
        >>> from leyden.core.flags import Flags
        >>> Flags(max_epochs=2, limit_val_batches=0).limit_val_batches
        0
    """

    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    precision: Any = None
    plugins: Any = None
    timeout: Any = None
    uneven: Literal["stop", "pad", "join"] = "stop"
    use_distributed_sampler: bool = True
    max_failed_saves: int = 3
    async_save: bool = False
    exact: bool | Literal["refuse"] = True
    strict: bool | None = None
    on_nonfinite: Literal["raise", "skip", "rollback", "ignore"] = "raise"
    activation_checkpointing: Any = False
    fast_dev_run: int | bool = False
    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    limit_train_batches: float | int = 1.0
    limit_val_batches: float | int = 1.0
    limit_test_batches: float | int = 1.0
    limit_predict_batches: float | int = 1.0
    val_check_interval: float | int | timedelta = 1.0
    check_val_every_n_epoch: int | None = 1
    num_sanity_val_steps: int = 2
    log_every_n_steps: int = 50
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | int | None = None
    gradient_clip_algorithm: str | None = None
    inference_mode: bool = True
    overfit_batches: float | int = 0.0
    reload_dataloaders_every_n_epochs: int = 0
    barebones: bool = False
    compile: Any = False
    engine: Strategy = field(init=False)

    @property
    def compile_options(self) -> dict[str, Any]:
        """Arguments of `torch.compile`."""
        return dict(self.compile) if isinstance(self.compile, Mapping) else {}

    def __post_init__(self) -> None:
        self.engine = choose_strategy(
            self.accelerator,
            self.strategy,
            self.devices,
            self.num_nodes,
            self.precision,
            self.plugins,
            self.timeout,
        )
        self._check_compile()
        self._check_uneven()
        self._check_failing()
        for flag, unit in _COUNTS.items():
            setattr(self, flag, _counted(flag, getattr(self, flag), unit))
        for flag in _SHARES:
            setattr(self, flag, _share(flag, getattr(self, flag)))
        if self.overfit_batches:
            self.limit_train_batches = self.limit_val_batches = self.overfit_batches
        self._check_limits()
        self._check_validation()
        self._check_counts()
        self._check_clipping()
        if self.fast_dev_run:
            self._run_little()

    def _check_uneven(self) -> None:
        if self.uneven not in ("stop", "pad", "join"):
            raise MisconfigurationValueError(f"`uneven` must be 'stop', 'pad' or 'join'; got {self.uneven!r}.")

    def _check_failing(self) -> None:
        if self.exact not in (True, False, "refuse"):
            raise MisconfigurationValueError(f"`exact` must be True, False or 'refuse'; got {self.exact!r}.")
        for flag, value in (("async_save", self.async_save), ("strict", self.strict)):
            if not isinstance(value, bool | None):
                raise MisconfigurationTypeError(f"`{flag}` must be True or False; got {value!r}.")
        if self.strict is None:
            self.strict = os.environ.get("LEYDEN_STRICT", "") not in ("", "0")
        if isinstance(self.max_failed_saves, bool) or not isinstance(self.max_failed_saves, int):
            raise MisconfigurationTypeError(f"`max_failed_saves` must be an int; got {self.max_failed_saves!r}.")
        if self.max_failed_saves < 1:
            raise MisconfigurationValueError(f"`max_failed_saves` must be at least 1; got {self.max_failed_saves}.")
        if self.on_nonfinite == "rollback":
            raise NotYetSupported("`on_nonfinite='rollback'` comes with a later version; this one has 'skip'.")
        if self.on_nonfinite not in ("raise", "skip", "ignore"):
            raise MisconfigurationValueError(
                f"`on_nonfinite` must be 'raise', 'skip' or 'ignore'; got {self.on_nonfinite!r}."
            )

    def _check_compile(self) -> None:
        given = self.compile
        if not isinstance(given, (bool, Mapping)):
            raise MisconfigurationTypeError(
                f"`compile` must be True, False or a dict of arguments of `torch.compile`; got {given!r}."
            )
        unknown = sorted(set(given) - set(_COMPILE)) if isinstance(given, Mapping) else []
        if unknown:
            raise MisconfigurationValueError(
                f"`compile` has unknown keys {unknown}; `torch.compile` takes {', '.join(_COMPILE)}."
            )

    def _check_limits(self) -> None:
        if not isinstance(self.fast_dev_run, bool):
            _whole(
                "fast_dev_run",
                self.fast_dev_run,
                0,
                words="must be True, False or a number of batches: it should be >= 0",
            )
        for flag in ("min_epochs", "min_steps"):
            if getattr(self, flag) is not None:
                _whole(flag, getattr(self, flag), 0)
        if self.max_epochs is not None:
            _whole("max_epochs", self.max_epochs, -1, words="must be a non-negative integer or -1")
        _whole("max_steps", self.max_steps, -1, words="must be a non-negative integer or -1 (infinite steps)")

    def settle_limits(self, *, timed: bool) -> None:
        """Set the limits that were left open, when a fit begins.

        Args:
            timed: Whether a timer ends the training.
        """
        if self.max_epochs is None:
            self.max_epochs = -1
            if self.max_steps == -1 and not timed:
                warn(
                    "LY-T001",
                    "`max_epochs` was not set. Setting it to 1000 epochs. To train without an epoch limit, set"
                    " `max_epochs=-1`.",
                    PossibleUserWarning,
                    stacklevel=5,
                )
                self.max_epochs = 1000
        if self.min_epochs is None:
            # a run that asks for steps trains at least the epoch that they are in
            self.min_epochs = 0 if self.min_steps is None else 1

    def _check_counts(self) -> None:
        _whole("num_sanity_val_steps", self.num_sanity_val_steps, -1, "-1 for all batches")
        _whole("log_every_n_steps", self.log_every_n_steps, 0)
        _whole("accumulate_grad_batches", self.accumulate_grad_batches, 1)
        every = self.reload_dataloaders_every_n_epochs
        _whole("reload_dataloaders_every_n_epochs", every, 0, words="should be an int >= 0")

    def _check_validation(self) -> None:
        if self.check_val_every_n_epoch is not None:
            words = "should be an integer of at least 1, or None to count batches over epochs"
            _whole("check_val_every_n_epoch", self.check_val_every_n_epoch, 1, words=words)
        interval = self.val_check_interval
        if not interval:
            raise MisconfigurationException(
                f"`val_check_interval` must be above 0; got {interval!r}. To run no validation, set"
                " `limit_val_batches=0`."
            )
        if self.check_val_every_n_epoch is None and isinstance(interval, float):
            raise MisconfigurationException(
                "`val_check_interval` should be an integer or a time-based duration (str 'DD:HH:MM:SS',"
                " datetime.timedelta, or dict kwargs for timedelta) when `check_val_every_n_epoch=None`;"
                f" got {interval!r}."
            )

    def _check_clipping(self) -> None:
        value = self.gradient_clip_val
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise MisconfigurationTypeError(f"`gradient_clip_val` should be an int or a float; got {value!r}.")
        algorithm = self.gradient_clip_algorithm
        self.gradient_clip_algorithm = algorithm = algorithm.lower() if isinstance(algorithm, str) else algorithm
        if algorithm not in (None, "norm", "value"):
            raise MisconfigurationException(
                f"`gradient_clip_algorithm` {algorithm} is invalid. Allowed algorithms: ['value', 'norm']."
            )

    def _run_little(self) -> None:
        count = int(self.fast_dev_run)
        self.fast_dev_run = True if count == 1 else count
        if not self.overfit_batches:
            self.limit_train_batches = self.limit_val_batches = count
        self.limit_test_batches = self.limit_predict_batches = count
        self.max_steps, self.max_epochs, self.num_sanity_val_steps = count, 1, 0
        self.val_check_interval, self.check_val_every_n_epoch = 1.0, 1


def _whole(flag: str, value: Any, least: int, special: str = "", words: str = "") -> None:
    """Raise unless a flag is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = MisconfigurationValueError if isinstance(value, int) else MisconfigurationTypeError
        meaning = f" ({special})" if special else ""
        rule = words or f"must be an int of at least {least}{meaning}"
        raise kind(f"`{flag}` {rule}. You passed in {value!r}: {flag}={value!r} is not a valid configuration.")


def _duration(flag: str, value: Any) -> Duration | None:
    """Return what a text with a unit says, or None for any other text."""
    try:
        return Duration.parse(value, flag)
    except MisconfigurationValueError:
        if isinstance(value, str) and (":" in value or value.strip().endswith(("ba", "st"))):
            raise
        return None


def _counted(flag: str, value: Any, unit: str) -> Any:
    """Return the number of a text such as ``"10ep"``; other values as they are, to be checked."""
    duration = _duration(flag, value) if isinstance(value, str) else None
    if duration is None:
        return value
    if duration.unit != unit:
        better = f"; {_BETTER[duration.unit]} takes them" if flag[:4] == "max_" and duration.unit in _BETTER else ""
        raise MisconfigurationValueError(
            f"`{flag}` counts {UNITS[unit]}, such as '10{unit}'; got {value!r}, which counts {UNITS[duration.unit]}"
            f"{better}."
        )
    if not isinstance(duration.value, int):
        raise MisconfigurationValueError(f"`{flag}` counts whole {UNITS[unit]}; got {value!r}.")
    return duration.value


def _share(flag: str, value: Any) -> float | int | timedelta:
    """Return a flag that is a share as a float, or a count as an int; of the interval of validation also a time."""
    if value is None:
        return 1.0
    given, duration = value, None
    timed = flag == "val_check_interval"
    if isinstance(value, str) or (timed and isinstance(value, (timedelta, Mapping))):
        duration = Duration.parse(value, flag) if timed else _duration(flag, value)
    if duration is not None:
        if timed and duration.time is not None:
            return duration.time
        if duration.unit not in ("ep", "ba"):
            raise MisconfigurationValueError(
                f"`{flag}` takes a part of an epoch, such as '0.5ep', or batches, such as '10ba'; got {given!r}, which"
                f" counts {UNITS[duration.unit]}."
            )
        value = float(duration.value) if duration.unit == "ep" else duration.value
        if duration.unit == "ep" and value > 1:
            raise MisconfigurationValueError(
                f"`{flag}` takes a part of an epoch, up to '1ep'; got {given!r}."
                + (" To validate in every n-th epoch, set `check_val_every_n_epoch=n`." if timed else "")
            )
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if valid or (isinstance(value, float) and 0.0 <= value <= 1.0):
        number: float | int = value
        return number
    if isinstance(value, float) and value > 1 and value.is_integer():
        return int(value)
    raise MisconfigurationException(
        f"You have passed invalid value {given!r} for {flag}, it has to be in [0.0, 1.0] or an int."
    )
