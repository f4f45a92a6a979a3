# SPDX-License-Identifier: Apache-2.0
"""The Trainer's flags, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    NotYetSupported,
    PossibleUserWarning,
    warn,
)

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "xla", "xpu")
_STRATEGIES = (
    "auto", "single_device", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "dp", "fsdp", "fsdp_cpu_offload",
    "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
    "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "xla", "xla_debug", "single_xla",
)  # fmt: skip
_FIND_UNUSED = ("_find_unused_parameters_true", "_find_unused_parameters_false")
_PRECISIONS = (
    "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "transformer-engine",
    "transformer-engine-float16", "16", "bf16", "32", "64",
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Flags:
    """Every flag by its name on `Trainer`, where they are described. Wrong values raise, naming the flag.

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
    fast_dev_run: int | bool = False
    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    limit_train_batches: float | int = 1.0
    limit_val_batches: float | int = 1.0
    limit_test_batches: float | int = 1.0
    limit_predict_batches: float | int = 1.0
    val_check_interval: float | int = 1.0
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

    def __post_init__(self) -> None:
        _whole("reload_dataloaders_every_n_epochs", self.reload_dataloaders_every_n_epochs, 0)
        self.overfit_batches = _fraction("overfit_batches", self.overfit_batches)
        if self.overfit_batches:
            self.limit_train_batches = self.limit_val_batches = self.overfit_batches
        self._check_engine()
        self._check_durations()
        for name in ("train", "val", "test", "predict"):
            flag = f"limit_{name}_batches"
            setattr(self, flag, _fraction(flag, getattr(self, flag)))
        self._check_validation()
        _whole("log_every_n_steps", self.log_every_n_steps, 0)
        _whole("accumulate_grad_batches", self.accumulate_grad_batches, 1)
        self._check_clipping()
        if self.fast_dev_run:
            self._run_little()

    def _check_engine(self) -> None:
        if isinstance(self.accelerator, str) and self.accelerator not in _ACCELERATORS:
            raise MisconfigurationValueError(
                f"You selected an invalid accelerator name: `accelerator={self.accelerator!r}`. Available names"
                f" are: {', '.join(_ACCELERATORS)}."
            )
        if self.accelerator not in ("auto", "cpu"):
            raise NotYetSupported(
                f"`accelerator={self.accelerator!r}` comes with a later version; this one trains on the CPU."
            )
        if self.devices in (0, "0", [], ""):
            raise MisconfigurationException(
                f"`devices` must ask for at least one device; got {self.devices!r}. This version uses one: 1 or 'auto'."
            )
        if self.devices not in ("auto", 1, "1", [0]):
            raise NotYetSupported(f"`devices={self.devices!r}` comes with a later version; this one uses one device.")
        _whole("num_nodes", self.num_nodes, 1)
        if self.num_nodes > 1:
            raise NotYetSupported(
                f"`num_nodes={self.num_nodes}` comes with a later version; this one uses one machine."
            )
        self._check_strategy()
        if self.precision is not None and str(self.precision) not in _PRECISIONS:
            raise MisconfigurationValueError(
                f"Precision {self.precision!r} is invalid. Allowed precision values: {', '.join(_PRECISIONS)}."
            )
        if self.precision is not None and str(self.precision) not in ("32", "32-true"):
            raise NotYetSupported(f"`precision={self.precision!r}` comes with a later version; this one has '32-true'.")

    def _check_strategy(self) -> None:
        given = self.strategy
        plain = given
        for ending in _FIND_UNUSED:
            if isinstance(given, str) and given.startswith("ddp"):
                plain = plain.removesuffix(ending)
        if isinstance(given, str) and plain not in _STRATEGIES:
            raise MisconfigurationValueError(
                f"You selected an invalid strategy name: `strategy={given!r}`. Available names are:"
                f" {', '.join(_STRATEGIES)}."
            )
        if given not in ("auto", "single_device"):
            raise NotYetSupported(f"`strategy={given!r}` comes with a later version; this one has 'single_device'.")

    def _check_durations(self) -> None:
        if not isinstance(self.fast_dev_run, bool):
            _whole("fast_dev_run", self.fast_dev_run, 0)
        for flag in ("min_epochs", "min_steps"):
            if getattr(self, flag) is not None:
                _whole(flag, getattr(self, flag), 0)
        if self.max_epochs is not None:
            _whole("max_epochs", self.max_epochs, -1, "-1 for no limit")
        _whole("max_steps", self.max_steps, -1, "-1 for no limit")
        if self.max_epochs is None and self.max_steps == -1 and not self.fast_dev_run:
            warn(
                "LY-T001",
                "`max_epochs` was not set. Setting it to 1000 epochs. To train without an epoch limit, set"
                " `max_epochs=-1`.",
                PossibleUserWarning,
                stacklevel=6,
            )
            self.max_epochs = 1000
        if self.max_epochs is None:
            self.max_epochs = -1

    def _check_validation(self) -> None:
        if self.check_val_every_n_epoch is not None:
            _whole("check_val_every_n_epoch", self.check_val_every_n_epoch, 1, "None to count batches over epochs")
        interval = self.val_check_interval
        if isinstance(interval, (str, timedelta, Mapping)):
            raise NotYetSupported(
                f"`val_check_interval={interval!r}`, a time, comes with a later version; this one takes a fraction of"
                " an epoch (float) or a number of training batches (int)."
            )
        self.val_check_interval = interval = _fraction("val_check_interval", interval)
        if interval == 0:
            raise MisconfigurationException(
                f"`val_check_interval` must be above 0; got {interval!r}. To run no validation, set"
                " `limit_val_batches=0`."
            )
        if self.check_val_every_n_epoch is None and isinstance(interval, float):
            raise MisconfigurationException(
                f"`val_check_interval` should be an integer when `check_val_every_n_epoch=None`; got {interval!r}."
            )
        _whole("num_sanity_val_steps", self.num_sanity_val_steps, -1, "-1 for all batches")

    def _check_clipping(self) -> None:
        value = self.gradient_clip_val
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise MisconfigurationTypeError(f"`gradient_clip_val` should be an int or a float; got {value!r}.")
        if self.gradient_clip_algorithm not in (None, "norm", "value"):
            raise MisconfigurationException(
                f"`gradient_clip_algorithm` {self.gradient_clip_algorithm!r} is invalid. Allowed algorithms:"
                " ['value', 'norm']."
            )

    def _run_little(self) -> None:
        count = int(self.fast_dev_run)
        self.limit_train_batches = self.limit_val_batches = self.limit_test_batches = self.limit_predict_batches = count
        self.max_steps, self.max_epochs, self.num_sanity_val_steps = count, 1, 0
        self.val_check_interval, self.check_val_every_n_epoch = 1.0, 1


def _whole(flag: str, value: Any, least: int, special: str = "") -> None:
    """Raise unless a flag is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = MisconfigurationValueError if isinstance(value, int) else MisconfigurationTypeError
        meaning = f" ({special})" if special else ""
        raise kind(f"`{flag}` must be an int of at least {least}{meaning}; got {value!r}.")


def _fraction(flag: str, value: Any) -> float | int:
    """Return a flag that is a share as a float, or a count as an int."""
    if value is None:
        return 1.0
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if valid or (isinstance(value, float) and 0.0 <= value <= 1.0):
        number: float | int = value
        return number
    if isinstance(value, float) and value > 1 and value.is_integer():
        return int(value)
    raise MisconfigurationException(
        f"You have passed invalid value {value!r} for `{flag}`, it has to be in [0.0, 1.0] or an int."
    )
