# SPDX-License-Identifier: Apache-2.0
"""States of a sharded module and its optimisers: whole, as one process has them, or in shards on a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.strategies import shards


def whole_model(module: nn.Module, keep: bool) -> dict[str, Any]:
    """Return a sharded module's state as an unsharded one would have it.

    Args:
        module: The module. Every process calls this.
        keep: Whether this process wants it; another gets an empty dict, and holds one parameter at a time.
    """
    found = _once(module, lambda value: _whole(value, keep))
    return found if keep else {}


def model_in_shards(module: nn.Module) -> dict[str, Any]:
    """Return a sharded module's state with this process's shards, under the names of an unsharded one."""
    return _once(module, lambda value: value.detach() if isinstance(value, Tensor) else value)


def _once(module: nn.Module, change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a module's state, each value changed; one that has two names is the same object under both."""
    reshard(module)
    tied = {name: id(p) for name, p in module.named_parameters(remove_duplicate=False)}
    found: dict[str, Any] = {}
    first: dict[int, Any] = {}
    for name, value in module.state_dict().items():
        key = tied.get(name, id(value))
        found[name] = first[key] if key in first else change(value)
        if name in tied:
            first[key] = found[name]
    return found


def load_whole_model(module: nn.Module, state: Mapping[str, Any], strict: bool) -> Any:
    """Load into a sharded module the state of an unsharded one, which every process has, or can read in shards."""
    reshard(module)
    own = module.state_dict()
    read = shards.fetch(dict(state), lambda place: own.get(place[0]))
    parts = {name: _like(value, own.get(name)) for name, value in read.items()}
    return module.load_state_dict(parts, strict=strict)


def whole_optimizer(optimizer: Optimizer, keep: bool) -> dict[str, Any]:
    """Return the state of an optimiser of sharded parameters as it would be with unsharded ones.

    Parameters are numbered in the order of the optimiser's groups, which does not depend on the number of processes.
    """
    state = optimizer.state_dict()
    # every process walks through it, because each value is gathered from all
    held = {number: _each(lambda value: _whole(value, keep), values) for number, values in state["state"].items()}
    return {**state, "state": held} if keep else {}


def load_whole_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load into an optimiser of sharded parameters the state of one with unsharded ones, or in shards on a disk."""
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    read = shards.fetch(state["state"], lambda place: parameters.get(place[0]))
    held = {
        number: {name: _part(name, value, parameters.get(number)) for name, value in values.items()}
        for number, values in read.items()
    }
    optimizer.load_state_dict({**state, "state": held})


def save_sharded(folder: str | Path, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> None:
    """Write the shards of a module and its optimisers, each process its own, under the parameters' names.

    Args:
        folder: Where to; it has the format of `torch.distributed.checkpoint`.
        module: The module.
        optimizers: Its optimisers, no two with the same parameter.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    reshard(module)
    with shards.quiet():
        save(_named(module, optimizers), checkpoint_id=str(folder))


def load_sharded(folder: str | Path, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> None:
    """Read what `save_sharded` wrote, whatever the number of processes then and now."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    reshard(module)
    state = _named(module, optimizers)
    # a parameter that never had a gradient has no state in the folder, and gets none
    paths = (shards.read_metadata(Path(folder)).planner_data or {}).values()
    stored = {path[2] for path in paths if path[:2] == ("optimizer", "state")}
    held = state["optimizer"]["state"]
    state["optimizer"]["state"] = {name: values for name, values in held.items() if name in stored}
    shards.read(Path(folder), state)
    set_state_dict(
        module,
        list(optimizers),
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(strict=False),
    )


def reshard(module: nn.Module) -> None:
    """Free what a forward pass has gathered: parameters are then shards, and a change of them is not overlooked."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _named(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = get_state_dict(module, list(optimizers))
    return {"model": model, "optimizer": optimizer}


def _whole(value: Any, keep: bool) -> Any:
    """Return a value with all its shards, on the CPU, where this process keeps it."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        # parameters that rest on the CPU are gathered where the processes are connected
        gathered: Any = value.detach().to(value.device_mesh.device_type)
        value = gathered.full_tensor()
    if not keep:
        return None
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _like(value: Any, own: Any) -> Any:
    """Return this process's part of a whole value, if its own is a shard of the same shape."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or isinstance(value, DTensor):
        return value
    if value.shape != own.shape:
        return value
    # the whole is here already: nothing has to be sent
    mesh, device = own.device_mesh, own.device_mesh.device_type
    shard = distribute_tensor(value.detach().to(device), mesh, own.placements, src_data_rank=None)
    return shard.to(own.device)


def _part(name: str, value: Any, parameter: Any) -> Any:
    """Return this process's part of what an optimiser keeps of a parameter; ``step`` and other numbers are whole."""
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

    if not isinstance(value, Tensor) or value.dim() == 0 or not isinstance(parameter, DTensor):
        return value
    if value.shape == parameter.shape:
        return _like(value, parameter)
    # such as the row means of Adafactor: it computes with them beside the shards
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, [Replicate()] * mesh.ndim, src_data_rank=None)


def _each(change: Callable[[Any], Any], values: Any) -> Any:
    return {name: change(value) for name, value in values.items()} if isinstance(values, dict) else change(values)


def clip(
    parameters: Sequence[Tensor], value: float, algorithm: str, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor | None:
    """Clip gradients, of which each process holds shards; returns their norm, if they are clipped by it."""
    from torch.distributed.tensor import DTensor

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if algorithm == "value":
        for gradient in gradients:
            local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            local.clamp_(-value, value)
        return None
    norm = torch.nn.utils.get_total_norm(gradients, norm_type)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise RuntimeError(
            f"The total norm of order {norm_type} of the gradients is non-finite, so it can not be clipped."
        )
    torch.nn.utils.clip_grads_with_norm_(parameters, value, norm)
    return norm
