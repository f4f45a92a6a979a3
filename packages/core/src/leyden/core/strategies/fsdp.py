# SPDX-License-Identifier: Apache-2.0
"""Several processes that share one module's parameters out: `torch.distributed.fsdp.fully_shard`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import LightningDeprecationWarning, MisconfigurationValueError, warn
from leyden.core.precision.precision import Precision
from leyden.core.strategies import fsdp_options as options
from leyden.core.strategies import fsdp_state as states
from leyden.core.strategies.fsdp_shard import checkpoint_activations, shard
from leyden.core.strategies.fsdp_units import Policy, checked_policy
from leyden.core.strategies.parallel import ParallelStrategy, Timeout

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

    from leyden.core.launch.environment import ClusterEnvironment

# under this name the module runs any function with its own parameters gathered
_GATHERED = "_with_parameters_gathered"


class FSDPStrategy(ParallelStrategy):
    """Fully sharded data parallel: each process keeps a part of the parameters, gradients and optimiser states.

    The module is cut into units. Just before a unit computes, its parameters are gathered from all processes, and
    afterwards they are freed. Runs on CUDA, and on the CPU for tests.

    Args:
        accelerator: What knows the kind of device.
        parallel_devices: The devices of this machine, one per process.
        cluster_environment: What knows the processes.
        checkpoint_io: Another way to write files comes with a later version.
        precision_plugin: The number format.
        process_group_backend: Backend of `torch.distributed`; that of the accelerator if None.
        timeout: How long processes wait for each other, or a pair (start-up, step).
        cpu_offload: Whether parameters, gradients and optimiser states rest in the memory of the CPU; or a
            `CPUOffloadPolicy`.
        mixed_precision: A `MixedPrecisionPolicy`; that of ``precision`` if None.
        auto_wrap_policy: Which submodules are units: a set of classes, a function of a module, or a number of
            parameters above which a module is one. None takes the blocks of every `ModuleList` and `Sequential`.
        activation_checkpointing: The old name of the next one.
        activation_checkpointing_policy: Which submodules compute their activations anew in the backward pass, which
            saves memory and costs time: a set of classes, or a function.
        sharding_strategy: ``"FULL_SHARD"``; ``"SHARD_GRAD_OP"`` keeps parameters gathered between forward and
            backward; ``"HYBRID_SHARD"`` shards within a machine, and copies from machine to machine; ``"NO_SHARD"``
            copies only.
        state_dict_type: ``"full"`` for checkpoints of one file, or ``"sharded"`` for folders into which each process
            writes its own part. Any number of processes loads both.
        device_mesh: How many copies of how many shards, or a `DeviceMesh`, with ``"HYBRID_SHARD"``.
        num_nodes: How many machines take part.
        **kwargs: ``reshard_after_forward`` and ``shard_placement_fn`` of `fully_shard`.

    Raises:
        MisconfigurationException: An argument is unknown, belongs to FSDP1 only, or has a wrong value.

    Examples:
        >>> import torch
        >>> import leyden.core as L
        >>> from leyden.core.strategies import FSDPStrategy
        >>> strategy = FSDPStrategy(auto_wrap_policy={torch.nn.TransformerEncoderLayer})
        >>> trainer = L.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy=strategy, logger=False)
        >>> trainer.strategy.strategy_name, trainer.world_size
        ('fsdp', 2)
    """

    strategy_name = "fsdp"
    sharded = True
    reads_shards = True

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: Sequence[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: Any = None,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: Timeout = None,
        cpu_offload: bool | OffloadPolicy | None = None,
        mixed_precision: MixedPrecisionPolicy | None = None,
        auto_wrap_policy: Policy | None = None,
        activation_checkpointing: type[nn.Module] | list[type[nn.Module]] | None = None,
        activation_checkpointing_policy: Policy | None = None,
        sharding_strategy: str = "FULL_SHARD",
        state_dict_type: Literal["full", "sharded"] = "full",
        device_mesh: tuple[int, int] | DeviceMesh | None = None,
        num_nodes: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator, parallel_devices, cluster_environment, checkpoint_io, precision_plugin,
            process_group_backend, timeout, num_nodes,
        )  # fmt: skip
        if state_dict_type not in ("full", "sharded"):
            raise MisconfigurationValueError(f"`state_dict_type` must be 'full' or 'sharded'; got {state_dict_type!r}.")
        if activation_checkpointing is not None and activation_checkpointing_policy is not None:
            raise MisconfigurationValueError(
                "You cannot set both `activation_checkpointing` and `activation_checkpointing_policy`. Use the latter."
            )
        if activation_checkpointing is not None:
            warn(
                "LY-S020",
                "`activation_checkpointing` is deprecated, use `activation_checkpointing_policy`.",
                LightningDeprecationWarning,
            )
        again = activation_checkpointing or activation_checkpointing_policy
        self._wrap = checked_policy(auto_wrap_policy, "auto_wrap_policy")
        self._again = checked_policy(again, "activation_checkpointing_policy")
        self.sharding_strategy = options.checked_sharding(sharding_strategy)
        self.state_dict_type = state_dict_type
        self.cpu_offload = options.checked_offload(cpu_offload)
        self.mixed_precision = options.checked_mixed_precision(mixed_precision)
        self.device_mesh = options.checked_mesh(device_mesh, self.sharding_strategy)
        self._kwargs = options.checked_kwargs(kwargs)

    # -- the life of a run ---------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        """Meet the other processes, and settle who has which part."""
        super().setup_environment()
        per_node = self.num_processes if self._num_nodes > 1 else self.world_size
        self.device_mesh = options.mesh_of(
            self.device_mesh, self.sharding_strategy, self.root_device.type, self.world_size, per_node
        )

    def setup_module(self, module: nn.Module, move_to_device: bool = True) -> None:
        """Shard a module; one that is sharded already stays as it is. Shards stand where they compute."""
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        module = self.precision_plugin.convert_module(module)
        if self._again is not None and not isinstance(module, FSDPModule):
            checkpoint_activations(module, self._again)
        one = partial(
            fully_shard,
            mp_policy=options.precision_policy(self.mixed_precision, self.precision_plugin),
            offload_policy=options.offload_policy(self.cpu_offload, self.root_device),
            **{"reshard_after_forward": options.SHARDING[self.sharding_strategy][0], **self._kwargs},
        )
        shard(module, self.root_device, self.device_mesh, one, self._wrap)
        module._apply(self._beside_parameters)  # type: ignore[no-untyped-call]
        setattr(module, _GATHERED, _call)
        register_fsdp_forward_method(module, _GATHERED)
        self.module = self.model = module

    def _beside_parameters(self, tensor: Tensor) -> Tensor:
        """Move what is no parameter, such as the state of a metric: parameters may rest elsewhere."""
        from torch.distributed.tensor import DTensor

        return tensor if isinstance(tensor, DTensor) else tensor.to(self.root_device)

    def setup_training(self, optimizers: Sequence[Optimizer], *, automatic: bool = True) -> None:
        """Check that the optimisers have the sharded parameters.

        Raises:
            MisconfigurationValueError: One has those of before.
        """
        from torch.distributed.tensor import DTensor

        for optimizer in optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if parameters and not any(isinstance(parameter, DTensor) for parameter in parameters):
                raise MisconfigurationValueError(
                    f"The optimizer {type(optimizer).__name__} does not seem to reference any FSDP parameters: make it"
                    " in `configure_optimizers()` from `self.parameters()`, which are sharded by then."
                )

    def teardown(self) -> None:
        """Let go of the module, which stays sharded."""
        if self.module is not None:
            states.reshard(self.module)
            self.module.__dict__.pop(_GATHERED, None)
        super().teardown()

    # -- a step --------------------------------------------------------------------------------------------------------

    def step_method(self, name: str) -> Callable[..., Any]:
        """Return the method; whatever it calls of the module has its parameters gathered."""
        own = super().step_method(name)
        return self._gathered(own) if name == "training_step" else self._freed(self._gathered(own))

    def forward_pass(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call; whatever it calls of the module has its parameters gathered."""
        trained = call if call is self.module else self._gathered(call)
        evaluated = self._freed(trained)

        def either(*args: Any, **kwargs: Any) -> Any:
            return (trained if torch.is_grad_enabled() else evaluated)(*args, **kwargs)

        return either

    def _gathered(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return partial(getattr(self.module, _GATHERED), call)

    def _freed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        module: Any = self.module

        def evaluated(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            finally:
                # there is no backward pass that frees what the root has gathered
                module.reshard()

        return evaluated

    def accumulating(self) -> AbstractContextManager[Any] | None:
        """Return a context in which gradients stay with their process, whole."""
        return None if self.module is None or self.world_size == 1 else self._apart(self.module)

    @contextmanager
    def _apart(self, module: Any) -> Generator[None, None, None]:
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)

    def before_backward(self, loss: Tensor) -> None:
        """Announce a backward pass from inside of a step: the loss may come from any part of the module."""
        if self.module is not None and torch.is_grad_enabled():
            getattr(self.module, _GATHERED)(lambda: loss)

    def average_gradients(self) -> None:
        """Exchange the gradients that processes kept, by a backward pass in which nothing is computed."""
        nothing = torch.zeros((), device=self.root_device, requires_grad=True)
        with torch.enable_grad():
            getattr(self.module, _GATHERED)(lambda: nothing * 0.0).backward()

    def before_evaluation(self) -> None:
        """Send the first process's buffers, such as running means, to all."""
        for buffer in self.module.buffers() if self.module is not None else ():
            dist.broadcast(buffer, 0)

    def clip_gradients(
        self,
        parameters: Sequence[Tensor],
        value: float,
        algorithm: str,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
    ) -> Tensor | None:
        """Clip gradients by their norm over all processes, or by value."""
        return states.clip(parameters, value, algorithm, norm_type, error_if_nonfinite)

    # -- state ---------------------------------------------------------------------------------------------------------

    def model_state_dict(self) -> dict[str, Any]:
        """Return the whole module's state on the first process, an empty dict on others. Every process calls it."""
        assert self.module is not None
        return states.whole_model(self.module, self.is_global_zero)

    def load_model_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Load a whole module's state, which every process has read, or which stands in shards."""
        assert self.module is not None
        states.load_whole_model(self.module, state_dict, strict)

    def optimizer_state_dict(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimiser's whole state on the first process, an empty dict on others. Every process calls it."""
        return states.whole_optimizer(optimizer, self.is_global_zero)

    def load_optimizer_state_dict(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        """Load an optimiser's whole state, which every process has read, or which stands in shards."""
        states.load_whole_optimizer(optimizer, state_dict)

    def saved_model_state(self) -> dict[str, Any]:
        """Return the state for a checkpoint: in shards on every process, with ``state_dict_type="sharded"``."""
        assert self.module is not None
        return states.model_in_shards(self.module) if self.state_dict_type == "sharded" else self.model_state_dict()

    def saved_optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimiser's state for a checkpoint: in shards, with ``state_dict_type="sharded"``."""
        return optimizer.state_dict() if self.state_dict_type == "sharded" else self.optimizer_state_dict(optimizer)

    def save_sharded(self, path: str | Path, optimizers: Sequence[Optimizer] = ()) -> None:
        """Write a folder of `torch.distributed.checkpoint` with the module and its optimisers, in shards."""
        assert self.module is not None
        states.save_sharded(path, self.module, optimizers)

    def load_sharded(self, path: str | Path, optimizers: Sequence[Optimizer] = ()) -> None:
        """Read what `save_sharded` wrote under any number of processes."""
        assert self.module is not None
        states.load_sharded(path, self.module, optimizers)

    # -- making tensors ------------------------------------------------------------------------------------------------

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make tensors on the CPU, whence each process takes its part; ``empty_init`` makes them without memory."""
        place = torch.device("meta") if empty_init else torch.device("cpu")
        with place, self.precision_plugin.tensor_init_context():
            yield

    def model_sharded_context(self) -> AbstractContextManager[Any]:
        """Run ``configure_model``: parameters are made in the run's format, and sharded afterwards."""
        return self.precision_plugin.module_init_context()


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
