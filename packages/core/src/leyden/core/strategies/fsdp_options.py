# SPDX-License-Identifier: Apache-2.0
"""What the arguments of `FSDPStrategy` mean to `torch.distributed.fsdp.fully_shard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError
from leyden.core.precision.precision import Precision

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

# by name: whether parameters are freed after a forward pass (None: of all units but the root), and whether the mesh
# has two dimensions, of which the first holds copies
SHARDING = {
    "FULL_SHARD": (None, False),
    "SHARD_GRAD_OP": (False, False),
    "HYBRID_SHARD": (None, True),
    "_HYBRID_SHARD_ZERO2": (False, True),
    "NO_SHARD": (False, True),
}
# what FSDP1 has to be asked for, and FSDP2 always does
_ALWAYS = ("use_orig_params", "sync_module_states", "limit_all_gathers")
_WITHOUT_COUNTERPART = {
    "backward_prefetch": "FSDP2 prefetches by itself; `FSDPModule.set_modules_to_backward_prefetch` says what",
    "forward_prefetch": "FSDP2 prefetches by itself; `FSDPModule.set_modules_to_forward_prefetch` says what",
    "ignored_modules": "every parameter is sharded",
    "ignored_states": "every parameter is sharded",
    "ignored_parameters": "every parameter is sharded",
    "param_init_fn": "give the module `reset_parameters`",
    "process_group": "give `device_mesh`",
    "device_id": "the accelerator has it",
}
_TAKEN = ("reshard_after_forward", "shard_placement_fn")


def checked_sharding(given: Any) -> str:
    """Return the name of a sharding strategy, from a name or the enumeration of FSDP1."""
    name = str(getattr(given, "name", given)).upper()
    if name not in SHARDING:
        raise MisconfigurationValueError(f"`sharding_strategy` must be one of {', '.join(SHARDING)}; got {given!r}.")
    return name


def checked_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that `fully_shard` takes.

    Raises:
        MisconfigurationTypeError: One is unknown, or belongs to FSDP1 and has no counterpart.
    """
    for name, value in given.items():
        if name in _TAKEN or (name in _ALWAYS and value):
            continue
        if name in _ALWAYS:
            raise MisconfigurationTypeError(f"`{name}={value!r}` has no counterpart in FSDP2, where it is always on.")
        if name in _WITHOUT_COUNTERPART:
            raise MisconfigurationTypeError(
                f"`{name}` is an argument of FSDP1 without a counterpart in FSDP2: {_WITHOUT_COUNTERPART[name]}."
            )
        raise MisconfigurationTypeError(
            f"`FSDPStrategy` got an unexpected argument {name!r}; besides its own, it takes {', '.join(_TAKEN)}."
        )
    return {name: value for name, value in given.items() if name in _TAKEN}


def checked_offload(given: Any) -> bool | OffloadPolicy:
    """Return whether parameters rest in the memory of the CPU, or the policy that says how."""
    if given is None or isinstance(given, bool):
        return bool(given)
    if hasattr(given, "offload_params"):  # FSDP1's
        return bool(given.offload_params)
    from torch.distributed.fsdp import OffloadPolicy

    if isinstance(given, OffloadPolicy):
        return given
    raise MisconfigurationTypeError(f"`cpu_offload` takes True, False or a `CPUOffloadPolicy`; got {given!r}.")


def offload_policy(given: bool | OffloadPolicy, device: torch.device) -> OffloadPolicy:
    """Return the policy for a device."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    if not isinstance(given, bool):
        return given
    return CPUOffloadPolicy(pin_memory=device.type != "cpu") if given else OffloadPolicy()


def checked_mixed_precision(given: Any) -> MixedPrecisionPolicy | None:
    """Return the policy that is given.

    Raises:
        MisconfigurationTypeError: It is something else, such as the `MixedPrecision` of FSDP1.
    """
    if given is None:
        return None
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if not isinstance(given, MixedPrecisionPolicy):
        raise MisconfigurationTypeError(
            "`mixed_precision` takes a `torch.distributed.fsdp.MixedPrecisionPolicy`, which replaces FSDP1's"
            f" `MixedPrecision`; got {given!r}."
        )
    return given


def precision_policy(given: MixedPrecisionPolicy | None, plugin: Precision) -> MixedPrecisionPolicy:
    """Return the policy: the given one, or that of a number format.

    A mixed format keeps 32 bits where the optimiser steps and where gradients are added up, and gathers parameters in
    16. What a unit is given is cast as well, unless the format runs in autocast, which does it where it is needed.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if given is not None:
        return given
    gathered = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(plugin.precision)
    if gathered is None:
        return MixedPrecisionPolicy()
    casts = not plugin.replaces("forward_context")
    return MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=casts)


def checked_mesh(given: Any, sharding: str) -> Any:
    """Return a mesh, or its sizes, as it is given.

    Raises:
        MisconfigurationTypeError: It is neither.
        MisconfigurationValueError: It has two dimensions and the strategy has no copies.
    """
    if given is None:
        return None
    sizes = tuple(given) if isinstance(given, (tuple, list)) else None
    if sizes is not None:
        if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
            raise MisconfigurationValueError(f"`device_mesh` takes two sizes, (replicate, shard); got {given!r}.")
    elif not hasattr(given, "get_group"):
        raise MisconfigurationTypeError(f"`device_mesh` takes (replicate, shard) or a `DeviceMesh`; got {given!r}.")
    if (sizes is not None or given.ndim > 1) and not SHARDING[sharding][1]:
        raise MisconfigurationValueError(
            f"`device_mesh` with copies goes with `sharding_strategy='HYBRID_SHARD'`; got {sharding!r}."
        )
    return given if sizes is None else sizes


def mesh_of(given: Any, sharding: str, device: str, world: int, per_node: int) -> DeviceMesh:
    """Return the mesh of all processes: one dimension, or copies times shards.

    Raises:
        MisconfigurationValueError: The given sizes do not multiply to the number of processes.
    """
    from torch.distributed.device_mesh import init_device_mesh

    if given is not None and not isinstance(given, tuple):
        mesh: DeviceMesh = given
        return mesh
    if not SHARDING[sharding][1]:
        return init_device_mesh(device, (world,), mesh_dim_names=("shard",))
    # without sizes the copies are one per machine, whose devices are near to each other
    shard = 1 if sharding == "NO_SHARD" else per_node
    sizes = given or (world // shard, shard)
    if sizes[0] * sizes[1] != world:
        raise MisconfigurationValueError(
            f"`device_mesh` {sizes}, of copies times shards, must have a place for each of the {world} processes."
        )
    return init_device_mesh(device, sizes, mesh_dim_names=("replicate", "shard"))
