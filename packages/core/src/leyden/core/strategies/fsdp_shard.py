# SPDX-License-Identifier: Apache-2.0
"""Sharding a module, unit by unit: the largest unit, and not the module, has to fit on a device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leyden.core.errors import MisconfigurationRuntimeError
from leyden.core.strategies.fsdp_units import Policy, chosen_by, units_of

_FILLS = ("reset_parameters", "_reset_parameters", "init_weights")


def shard(
    root: nn.Module, device: torch.device, mesh: Any, fully_shard: Callable[..., Any], policy: Policy | None
) -> None:
    """Shard a module over all processes, with the values that the first one has.

    A module whose user has called ``fully_shard`` keeps the units it has.

    Args:
        root: The module; parameters may be on the meta device.
        device: The device of this process.
        mesh: The mesh of all processes.
        fully_shard: Shards one unit over a mesh.
        policy: Which submodules are units.

    Raises:
        MisconfigurationRuntimeError: Parameters on the meta device have nothing that fills them.
    """
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    theirs = any(isinstance(module, FSDPModule) for module in root.modules())
    # optimisers and norms compute over all parameters at once, and these must lie on one mesh
    mesh = next((p.device_mesh for p in root.parameters() if isinstance(p, DTensor)), mesh)
    for unit in [*([] if theirs else units_of(root, policy)), root]:
        _fill(unit, device, root)
        if not isinstance(unit, FSDPModule):
            _same_everywhere(unit, device)
            fully_shard(unit, mesh=mesh)


def checkpoint_activations(root: nn.Module, policy: Policy) -> None:
    """Let the modules that a policy chooses compute their activations anew in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    for module in chosen_by(root, policy):
        # the hooks that gather parameters stand around `forward`, and the names of the parameters stay
        module.forward = wraps(module.forward)(partial(checkpoint, module.forward, use_reentrant=False))


def _fill(unit: nn.Module, device: torch.device, root: nn.Module) -> None:
    """Give memory and first values to what is on the meta device, as if it had been made on this one."""
    empty = {module: [name for name, tensor in _own(module) if tensor.is_meta] for module in unit.modules()}
    empty = {module: names for module, names in empty.items() if names}
    if not empty:
        return
    _give_memory(unit, empty, device)
    paths = {module: name for name, module in root.named_modules()}
    left = []
    for module, names in empty.items():
        fill = next((getattr(module, each) for each in _FILLS if callable(getattr(module, each, None))), None)
        if fill is None:
            left += [f"{paths[module]}.{name}".lstrip(".") for name in names]
        else:
            with torch.no_grad(), _whole(module, device):
                fill()
    if left:
        raise MisconfigurationRuntimeError(
            f"{', '.join(left)}: made on the meta device, and nothing fills it. Give the module that holds it a method"
            " `reset_parameters()`, or make it on a real device in `configure_model`."
        )


def _give_memory(unit: nn.Module, empty: dict[nn.Module, list[str]], device: torch.device) -> None:
    from torch.distributed.tensor import DTensor

    if any(isinstance(tensor, DTensor) for module in empty for _, tensor in _own(module)):
        # the user's own shards, which only their unit can exchange
        unit._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)  # type: ignore[no-untyped-call]
        return
    tied: dict[int, nn.Parameter] = {}
    for module, names in empty.items():
        for name in names:
            tensor = getattr(module, name)
            made = torch.empty_like(tensor, device=device)
            if isinstance(tensor, nn.Parameter):
                parameter = nn.Parameter(made, requires_grad=tensor.requires_grad)
                setattr(module, name, tied.setdefault(id(tensor), parameter))
            else:
                module._buffers[name] = made


@contextmanager
def _whole(module: nn.Module, device: torch.device) -> Generator[None, None, None]:
    """Let a module fill whole parameters, of which shards become what the first process's have.

    Drawn shard by shard, numbers would be the same in each: processes have the same seed.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    shards = {name: p for name, p in module.named_parameters(recurse=False) if isinstance(p, DTensor)}
    for name, parameter in shards.items():
        module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device=device))
    yield
    for name, parameter in shards.items():
        whole = getattr(module, name).data
        parameter.copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements))
        module._parameters[name] = parameter


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Go through the parameters and buffers that a module holds itself."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _same_everywhere(unit: nn.Module, device: torch.device) -> None:
    """Bring what is not sharded yet to the device, with the values of the first process."""
    from torch.distributed.tensor import DTensor

    for tensor in (*unit.parameters(), *unit.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device).contiguous()
            dist.broadcast(tensor.data, 0)
