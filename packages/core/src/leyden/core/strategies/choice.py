# SPDX-License-Identifier: Apache-2.0
"""Which device, strategy and number format the Trainer's flags ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from leyden.core.accelerators.cpu import CPUAccelerator
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationValueError,
    NotYetSupported,
)
from leyden.core.plugins.precision import Precision
from leyden.core.strategies.single_device import SingleDeviceStrategy

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "xla", "xpu")
STRATEGIES = (
    "auto", "single_device", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "dp", "fsdp", "fsdp_cpu_offload",
    "deepspeed", "deepspeed_stage_1", "deepspeed_stage_1_offload", "deepspeed_stage_2", "deepspeed_stage_2_offload",
    "deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "xla", "xla_debug",
    "single_xla",
)  # fmt: skip
PRECISIONS = (
    "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "transformer-engine",
    "transformer-engine-float16", "16", "bf16", "32", "64",
)  # fmt: skip
_FIND_UNUSED = ("_find_unused_parameters_true", "_find_unused_parameters_false")
_CLASSES = {"cuda": "CUDAAccelerator", "mps": "MPSAccelerator", "tpu": "XLAAccelerator", "xla": "XLAAccelerator"}
# how a plug-in of each kind is known: no engine of this version takes one, so their classes are not here yet
_KINDS = {
    "CheckpointIO": ("save_checkpoint", "load_checkpoint"),
    "ClusterEnvironment": ("creates_processes_externally",),
    "LayerSync": ("apply", "revert"),
}


def choose_strategy(
    accelerator: Any, strategy: Any, devices: Any, num_nodes: Any, precision: Any, plugins: Any
) -> SingleDeviceStrategy:
    """Return the strategy that the flags of these names ask for.

    Raises:
        MisconfigurationException: A flag has a value that no version takes, or two contradict each other.
        NotYetSupported: A flag asks for what this version does not have.
    """
    _check_strategy(strategy)
    _check_accelerator(accelerator)
    _check_precision(precision)
    plugin = _precision_plugin(plugins, precision)
    _check_devices(accelerator, devices, num_nodes)
    if not isinstance(strategy, SingleDeviceStrategy):
        own = accelerator if isinstance(accelerator, CPUAccelerator) else None
        return SingleDeviceStrategy(accelerator=own, precision_plugin=plugin)
    if strategy._accelerator is not None and accelerator != "auto":
        raise MisconfigurationException("accelerator set through both strategy class and accelerator flag, choose one")
    if plugin is not None:
        if strategy._precision_plugin is not None:
            raise MisconfigurationException("precision set through both strategy class and plugins, choose one")
        strategy.precision_plugin = plugin
    return strategy


def _check_strategy(given: Any) -> None:
    if type(given) is SingleDeviceStrategy:
        return
    name = given.lower() if isinstance(given, str) else None
    plain = name
    if name is not None and name.startswith("ddp"):
        for ending in _FIND_UNUSED:
            plain = name.removesuffix(ending) if name.endswith(ending) else plain
    if plain not in STRATEGIES and not hasattr(given, "root_device"):
        raise MisconfigurationValueError(
            f"You selected an invalid strategy name: `strategy={given!r}`. It must be either a string or an instance of"
            f" a strategy. Available names are: {', '.join(STRATEGIES)}."
        )
    if name not in ("auto", "single_device"):
        raise NotYetSupported(f"`strategy={given!r}` comes with a later version; this one has 'single_device'.")


def _check_accelerator(given: Any) -> None:
    if type(given) is CPUAccelerator or given in ("auto", "cpu"):
        return
    if given not in ACCELERATORS and not hasattr(given, "auto_device_count"):
        raise MisconfigurationValueError(
            f"You selected an invalid accelerator name: `accelerator={given!r}`. Available names are:"
            f" {', '.join(ACCELERATORS)}."
        )
    missing = ""
    if given == "gpu" and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        missing = " No supported gpu backend found!"
    elif given in ("mps", "tpu", "xla") or (given == "cuda" and not torch.cuda.is_available()):
        missing = f" `{_CLASSES[given]}` can not run on your system since the accelerator is not available."
    raise NotYetSupported(
        f"`accelerator={given!r}` comes with a later version; this one trains on the CPU.{missing} The following"
        " accelerator(s) is available and can be passed into `accelerator` argument of `Trainer`: ['cpu']."
    )


def _check_devices(accelerator: Any, devices: Any, num_nodes: Any) -> None:
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or num_nodes < 1:
        raise MisconfigurationValueError(f"`num_nodes` must be a positive integer, but got {num_nodes!r}.")
    if num_nodes > 1:
        raise NotYetSupported(f"`num_nodes={num_nodes}` comes with a later version; this one uses one machine.")
    if devices in (0, "0", [], (), ""):
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})` value is not a valid input using"
            f" {accelerator if isinstance(accelerator, str) else 'CPUAccelerator'} accelerator: `devices` must ask for"
            " at least one device. This version uses one: 1 or 'auto'."
        )
    if devices == "auto" or (devices == [0] and accelerator == "auto"):
        return
    if accelerator == "auto" and _names_gpus(devices):
        raise NotYetSupported(f"`devices={devices!r}` comes with a later version; this one uses one CPU: 1 or 'auto'.")
    if CPUAccelerator.parse_devices(devices) > 1:
        raise NotYetSupported(f"`devices={devices!r}` comes with a later version; this one uses one device.")


def _names_gpus(devices: Any) -> bool:
    """Tell whether devices are given as only GPUs can be: all of them, or by their numbers."""
    if isinstance(devices, str):
        parts = devices.split(",")
        return devices.strip() == "-1" or (len(parts) > 1 and all(part.strip().isdigit() for part in parts))
    if isinstance(devices, (list, tuple)):
        return all(isinstance(index, int) for index in devices)
    return type(devices) is int and devices == -1


def _check_precision(given: Any) -> None:
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, (str, int)) or str(given) not in PRECISIONS:
        raise MisconfigurationValueError(
            f"Precision {given!r} is invalid. Allowed precision values: {', '.join(PRECISIONS)}."
        )
    if str(given) not in ("32", "32-true"):
        raise NotYetSupported(f"`precision={given!r}` comes with a later version; this one has '32-true'.")


def _precision_plugin(plugins: Any, precision: Any) -> Precision | None:
    """Return the number format among the plug-ins, if there is one."""
    several = isinstance(plugins, Iterable) and not isinstance(plugins, str)
    given = [] if plugins is None else list(plugins) if several else [plugins]
    kinds = [_kind(plugin) for plugin in given]
    double = [kind for kind, count in Counter(kinds).items() if count > 1]
    if double:
        raise MisconfigurationException(
            f"Received multiple values for {', '.join(double)} flags in `plugins`. Expected one value for each type at"
            " most."
        )
    for plugin, kind in zip(given, kinds, strict=True):
        if kind == "Precision" and precision is not None:
            raise MisconfigurationValueError(
                f"Received both `precision={precision}` and `plugins={plugin}`. Choose one."
            )
        if type(plugin) is not Precision:
            raise NotYetSupported(
                f"`plugins={plugin!r}`, of the kind {kind}, comes with a later version; this one has `Precision()`."
            )
    return given[0] if given else None


def _kind(plugin: Any) -> str:
    if isinstance(plugin, Precision):
        return "Precision"
    for kind, methods in _KINDS.items():
        if not isinstance(plugin, type) and all(hasattr(plugin, method) for method in methods):
            return kind
    raise MisconfigurationException(
        f"Found invalid type for plugin {plugin}. Expected one of: Precision, CheckpointIO, ClusterEnvironment, or"
        " LayerSync."
    )
