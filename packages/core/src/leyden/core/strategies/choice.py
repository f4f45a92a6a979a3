# SPDX-License-Identifier: Apache-2.0
"""Which devices, processes and number format the flags ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.choice import choose_accelerator
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationValueError,
    NotYetSupported,
    warn,
)
from leyden.core.launch.choice import choose_launcher
from leyden.core.launch.environment import ClusterEnvironment, choose_environment
from leyden.core.precision.names import choose_precision
from leyden.core.precision.precision import Precision
from leyden.core.precision.quantized import Quantized
from leyden.core.strategies.dp import DataParallelStrategy
from leyden.core.strategies.parallel import ParallelStrategy
from leyden.core.strategies.registry import StrategyRegistry
from leyden.core.strategies.strategy import Strategy

# what the reference has under these names comes with the engines that a later version wires
_LATER = (
    "deepspeed", "deepspeed_stage_1", "deepspeed_stage_1_offload", "deepspeed_stage_2", "deepspeed_stage_2_offload",
    "deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "xla", "xla_debug",
    "single_xla",
)  # fmt: skip
# how a plug-in of each kind is known
_KINDS = {
    "CheckpointIO": ("save_checkpoint", "load_checkpoint"),
    "ClusterEnvironment": ("creates_processes_externally",),
    "LayerSync": ("apply", "revert"),
}


def choose_strategy(
    accelerator: Any,
    strategy: Any,
    devices: Any,
    num_nodes: Any,
    precision: Any,
    plugins: Any,
    timeout: Any = None,
) -> Strategy:
    """Return the strategy that the flags of these names ask for.

    Raises:
        MisconfigurationException: A flag has a value that no version takes, or two contradict each other.
        NotYetSupported: A flag asks for what this version does not have.
    """
    _check_strategy(strategy)
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int) or num_nodes < 1:
        raise MisconfigurationValueError(f"`num_nodes` must be a positive integer, but got {num_nodes!r}.")
    given = strategy if isinstance(strategy, Strategy) else None
    if given is not None and given._accelerator is not None and accelerator != "auto":
        raise MisconfigurationException("accelerator set through both strategy class and accelerator flag, choose one")
    if given is not None and given._accelerator is not None:
        accelerator = given._accelerator
    kind, places = choose_accelerator(accelerator, devices)
    made = given if given is not None else _made(strategy, places, num_nodes)
    format_plugin, environment = _plugins(plugins, precision)
    if format_plugin is not None and given is not None and given._precision_plugin is not None:
        raise MisconfigurationException("precision set through both strategy class and plugins, choose one")
    if places[0].type == "xla" and (len(places) > 1 or num_nodes > 1):
        raise NotYetSupported("Several XLA devices come with a later version; use `devices=1`.")
    made.accelerator = kind
    if format_plugin is not None:
        made.precision_plugin = format_plugin
    elif made._precision_plugin is None or precision is not None:
        made.precision_plugin = choose_precision(precision, places[0].type, fsdp=made.sharded)
    if made.sharded and isinstance(made.precision_plugin, Quantized):
        raise MisconfigurationException("`Quantized` weights cannot be sharded: use `strategy='ddp'`, or one device.")
    if isinstance(made, ParallelStrategy):
        _place(made, kind, places, num_nodes, environment, timeout)
    elif isinstance(made, DataParallelStrategy):
        made.spread(places)
    elif given is None:
        made.root_device = places[0]
    return made


def _check_strategy(given: Any) -> None:
    if isinstance(given, Strategy) or given in ("auto", "ddp2"):
        return
    name = given.lower() if isinstance(given, str) else None
    if name in StrategyRegistry:
        return
    if name in _LATER:
        raise NotYetSupported(f"`strategy={given!r}` comes with a later version; this one has ddp and fsdp.")
    raise MisconfigurationValueError(
        f"You selected an invalid strategy name: `strategy={given!r}`. It must be either a string or an instance of"
        f" a strategy. Available names are: {', '.join(['auto', *StrategyRegistry, *_LATER])}."
    )


def _made(name: Any, places: list[torch.device], num_nodes: int) -> Any:
    """Return a new strategy by the name that the flag has."""
    name = name.lower()
    if name == "ddp2":
        warn(
            "LY-S001", "`strategy='ddp2'` is an old name: it is 'ddp', with `x_step_end` on each process's own output."
        )
        name = "ddp"
    if name == "auto":
        name = "ddp" if num_nodes > 1 or len(places) > 1 else "single_device"
    if name == "single_device" and len(places) > 1:
        raise MisconfigurationValueError(
            f"`strategy='single_device'` takes one device; `devices` asks for {len(places)}. Use `strategy='ddp'`."
        )
    return StrategyRegistry.get(name)


def _place(
    strategy: ParallelStrategy,
    kind: Accelerator,
    places: list[torch.device],
    num_nodes: int,
    environment: ClusterEnvironment | None,
    timeout: Any,
) -> None:
    """Tell a strategy of several processes which they are and where they meet."""
    if not strategy.parallel_devices:
        strategy.parallel_devices = places
    if num_nodes != 1:
        strategy.num_nodes = num_nodes
    if timeout is not None:
        strategy.set_timeout(timeout)
    if environment is not None and strategy.cluster_environment is not None:
        raise MisconfigurationException("environment set through both strategy class and plugins, choose one")
    meeting = environment or strategy.cluster_environment or choose_environment()
    meeting.validate_settings(len(strategy.parallel_devices), strategy.num_nodes)
    strategy.cluster_environment = meeting
    method = getattr(strategy, "start_method", "popen")
    strategy.launcher = choose_launcher(meeting, method, len(strategy.parallel_devices), strategy.num_nodes)


def _plugins(plugins: Any, precision: Any) -> tuple[Precision | None, ClusterEnvironment | None]:
    """Return the number format and the environment among the plug-ins, if they are there."""
    several = isinstance(plugins, Iterable) and not isinstance(plugins, str)
    given = [] if plugins is None else list(plugins) if several else [plugins]
    kinds = [_kind(plugin) for plugin in given]
    double = [kind for kind, count in Counter(kinds).items() if count > 1]
    if double:
        raise MisconfigurationException(
            f"Received multiple values for {', '.join(double)} flags in `plugins`. Expected one value for each type at"
            " most."
        )
    found = dict(zip(kinds, given, strict=True))
    if "Precision" in found and precision is not None:
        raise MisconfigurationValueError(
            f"Received both `precision={precision}` and `plugins={found['Precision']}`. Choose one."
        )
    for kind in ("CheckpointIO", "LayerSync"):
        if kind in found:
            raise NotYetSupported(f"`plugins={found[kind]!r}`, of the kind {kind}, comes with a later version.")
    return found.get("Precision"), found.get("ClusterEnvironment")


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
