# SPDX-License-Identifier: Apache-2.0
"""The Trainer's flags, checked at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError, NotYetSupported, warn

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "xla", "xpu")
_PRECISIONS = (
    "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "transformer-engine",
    "transformer-engine-float16", "16", "bf16", "32", "64",
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Flags:
    """Every flag by its name on `Trainer`, where they are described. Wrong values raise, naming the flag."""

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

    def __post_init__(self) -> None:
        self._check_engine()
        self._check_durations()
        for name in ("train", "val", "test", "predict"):
            flag = f"limit_{name}_batches"
            setattr(self, flag, _fraction(flag, getattr(self, flag)))
        self._check_validation()
        if self.log_every_n_steps < 0:
            raise MisconfigurationValueError(
                f"`log_every_n_steps` must be a non-negative int; got {self.log_every_n_steps!r}."
            )
        if not isinstance(self.accumulate_grad_batches, int) or self.accumulate_grad_batches < 1:
            raise MisconfigurationValueError(
                f"`accumulate_grad_batches` must be an int of at least 1; got {self.accumulate_grad_batches!r}."
            )
        if self.gradient_clip_val is not None and not isinstance(self.gradient_clip_val, (int, float)):
            raise MisconfigurationException(
                f"`gradient_clip_val` should be an int or a float; got {self.gradient_clip_val!r}."
            )
        if self.gradient_clip_algorithm not in (None, "norm", "value"):
            raise MisconfigurationException(
                f"`gradient_clip_algorithm` {self.gradient_clip_algorithm!r} is invalid. Allowed algorithms:"
                " ['value', 'norm']."
            )
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
        if self.devices in (0, "0", []):
            raise MisconfigurationException(
                f"`Trainer(devices={self.devices!r})` value is not a valid input using cpu accelerator."
            )
        if self.devices not in ("auto", 1, "1", [0]):
            raise NotYetSupported(f"`devices={self.devices!r}` comes with a later version; this one uses one device.")
        if not isinstance(self.num_nodes, int) or self.num_nodes < 1:
            raise MisconfigurationValueError(f"`num_nodes` must be a positive integer; got {self.num_nodes!r}.")
        if self.num_nodes > 1:
            raise NotYetSupported(
                f"`num_nodes={self.num_nodes}` comes with a later version; this one uses one machine."
            )
        if self.strategy not in ("auto", "single_device"):
            raise NotYetSupported(
                f"`strategy={self.strategy!r}` comes with a later version; this one has 'single_device'."
            )
        if self.precision is not None and str(self.precision) not in _PRECISIONS:
            raise MisconfigurationValueError(
                f"Precision {self.precision!r} is invalid. Allowed precision values: {', '.join(_PRECISIONS)}."
            )
        if self.precision is not None and str(self.precision) not in ("32", "32-true"):
            raise NotYetSupported(f"`precision={self.precision!r}` comes with a later version; this one has '32-true'.")

    def _check_durations(self) -> None:
        if self.max_epochs is not None and self.max_epochs < -1:
            raise MisconfigurationException(
                f"`max_epochs` must be a non-negative integer or -1. You passed in {self.max_epochs}."
            )
        if self.max_steps < -1:
            raise MisconfigurationException(
                f"`max_steps` must be a non-negative integer or -1 (infinite steps). You passed in {self.max_steps}."
            )
        if self.max_epochs is None and self.max_steps == -1 and not self.fast_dev_run:
            warn(
                "LY-T001",
                "`max_epochs` was not set. Setting it to 1000 epochs. To train without an epoch limit, set"
                " `max_epochs=-1`.",
                stacklevel=6,
            )
            self.max_epochs = 1000
        if self.max_epochs is None:
            self.max_epochs = -1

    def _check_validation(self) -> None:
        every = self.check_val_every_n_epoch
        if every is not None and (not isinstance(every, int) or every < 1):
            raise MisconfigurationException(
                f"`check_val_every_n_epoch` should be an integer of at least 1 or `None`; got {every!r}."
            )
        interval = self.val_check_interval
        if every is None and isinstance(interval, float):
            raise MisconfigurationException(
                f"`val_check_interval` should be an integer when `check_val_every_n_epoch=None`; got {interval!r}."
            )
        if (
            isinstance(interval, bool)
            or not isinstance(interval, (int, float))
            or interval <= 0
            or (isinstance(interval, float) and interval > 1)
        ):
            raise MisconfigurationException(
                f"You have passed invalid value {interval!r} for `val_check_interval`, it has to be in [0.0, 1.0]"
                " or an int."
            )
        if not isinstance(self.num_sanity_val_steps, int) or self.num_sanity_val_steps < -1:
            raise MisconfigurationValueError(
                f"`num_sanity_val_steps` must be an int of at least -1; got {self.num_sanity_val_steps!r}."
            )

    def _run_little(self) -> None:
        count = int(self.fast_dev_run)
        if count < 0:
            raise MisconfigurationException(
                f"fast_dev_run={self.fast_dev_run!r} is not a valid configuration. It should be >= 0."
            )
        self.limit_train_batches = self.limit_val_batches = self.limit_test_batches = self.limit_predict_batches = count
        self.max_steps, self.max_epochs, self.num_sanity_val_steps = count, 1, 0
        self.val_check_interval, self.check_val_every_n_epoch = 1.0, 1


def _fraction(flag: str, value: Any) -> float | int:
    if value is None:
        return 1.0
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if valid or (isinstance(value, float) and 0.0 <= value <= 1.0):
        number: float | int = value
        return number
    if isinstance(value, float) and value > 1 and value.is_integer():
        return int(value)
    raise MisconfigurationException(
        f"You have passed invalid value {value!r} for {flag}, it has to be in [0.0, 1.0] or an int."
    )
