# SPDX-License-Identifier: Apache-2.0
"""Several processes with a whole copy of the module each: `torch.nn.parallel.DistributedDataParallel`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import MisconfigurationTypeError, MisconfigurationValueError
from leyden.core.precision.precision import Precision
from leyden.core.strategies.parallel import ParallelStrategy, Timeout
from leyden.core.transfer import apply_to_tensors

if TYPE_CHECKING:
    from leyden.core.launch.environment import ClusterEnvironment

START_METHODS = ("popen", "spawn", "fork", "forkserver")
_TORCH_ARGUMENTS = (
    "broadcast_buffers", "bucket_cap_mb", "find_unused_parameters", "check_reduction", "gradient_as_bucket_view",
    "static_graph", "init_sync", "delay_all_reduce_named_params", "param_to_hook_all_reduce", "mixed_precision",
)  # fmt: skip


class DDPStrategy(ParallelStrategy):
    """Data parallel: each process computes on its own batches, gradients are averaged while backward runs.

    Where nothing is said about unused parameters, they are looked for if there are several optimisers, each of which
    trains a part of the module, and not otherwise.

    Args:
        accelerator: What knows the kind of device.
        parallel_devices: The devices of this machine, one per process.
        cluster_environment: What knows the processes.
        checkpoint_io: Another way to write files comes with a later version.
        precision_plugin: The number format.
        ddp_comm_state: State of the communication hook.
        ddp_comm_hook: How gradients are sent, such as
            `torch.distributed.algorithms.ddp_comm_hooks.default_hooks.fp16_compress_hook`.
        ddp_comm_wrapper: What is put around the hook, such as ``fp16_compress_wrapper``.
        model_averaging_period: Not supported: average with a hook or an optimiser of `torch.distributed.optim`.
        process_group_backend: Backend of `torch.distributed`; ``"gloo"`` on the CPU, ``"nccl"`` on CUDA if None.
        timeout: How long processes wait for each other, or a pair (start-up, step).
        start_method: How processes start: ``"popen"`` runs the script again, ``"spawn"``, ``"fork"`` and
            ``"forkserver"`` run a function.
        num_nodes: How many machines take part.
        **kwargs: Further arguments of `DistributedDataParallel`.

    Raises:
        MisconfigurationException: An argument is unknown or has a wrong value.

    Examples:
        >>> import leyden.core as L
        >>> trainer = L.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False)
        >>> trainer.strategy.strategy_name, trainer.world_size
        ('ddp', 2)
    """

    strategy_name = "ddp"
    rests = True

    def __init__(
        self,
        accelerator: Accelerator | None = None,
        parallel_devices: Sequence[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: Any = None,
        precision_plugin: Precision | None = None,
        ddp_comm_state: object | None = None,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        model_averaging_period: int | None = None,
        process_group_backend: str | None = None,
        timeout: Timeout = None,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
        num_nodes: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator, parallel_devices, cluster_environment, checkpoint_io, precision_plugin,
            process_group_backend, timeout, num_nodes,
        )  # fmt: skip
        if start_method not in START_METHODS:
            raise MisconfigurationValueError(f"`start_method` must be one of {START_METHODS}; got {start_method!r}.")
        if model_averaging_period is not None:
            raise MisconfigurationValueError(
                "`model_averaging_period` is not supported: give `ddp_comm_hook=post_localSGD_hook` and average in an"
                " optimiser of `torch.distributed.optim`."
            )
        unknown = sorted(set(kwargs) - set(_TORCH_ARGUMENTS))
        if unknown:
            raise MisconfigurationTypeError(
                f"`DDPStrategy` got unexpected arguments {unknown}; `DistributedDataParallel` takes"
                f" {', '.join(_TORCH_ARGUMENTS)}."
            )
        self.start_method = start_method
        self._hook = ddp_comm_state, ddp_comm_hook, ddp_comm_wrapper
        self._ddp_kwargs = kwargs
        self._automatic = True

    def setup_training(self, optimizers: Sequence[Optimizer], *, automatic: bool = True) -> None:
        """Put `DistributedDataParallel` around the module."""
        module, self._automatic = self.module, automatic
        assert module is not None
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return
        options = {"find_unused_parameters": len(optimizers) > 1, **self._ddp_kwargs}
        there = all(parameter.device == self.root_device for parameter in module.parameters())
        ids = [self.root_device.index] if there and self.root_device.type in ("cuda", "xpu") else None
        self.model = model = _Redirected(module, device_ids=ids, **options)
        if not options["find_unused_parameters"] and not options.get("static_graph"):
            _settle_buckets(model)
        state, hook, wrapper = self._hook
        if hook is not None:
            model.register_comm_hook(state, wrapper(hook) if wrapper is not None else hook)

    def step_method(self, name: str) -> Callable[..., Any]:
        """Return the method; a training step goes through `DistributedDataParallel.forward`."""
        model = self.model
        if name != "training_step" or not isinstance(model, _Redirected):
            return super().step_method(name)
        own = super().step_method(name)
        # the user's step begins its backward passes itself, each of which `before_backward` announces
        return partial(model.run if self._automatic else model.run_unannounced, own)

    def forward_pass(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call; a backward pass that reaches what it gives averages gradients."""
        model = self.model
        if not isinstance(model, _Redirected):
            return call

        def through(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return call(*args, **kwargs)
            if model.static_graph:
                return model.run(call, *args, **kwargs)
            return model.watched(model.run_unannounced(call, *args, **kwargs))

        return through

    def resting_loss(self) -> Tensor:
        """Return a loss of zero that depends on every parameter."""
        assert isinstance(self.model, _Redirected)
        loss: Tensor = self.model.run(_nothing, self.model.module)
        return loss

    def inside_backward(self) -> AbstractContextManager[Any] | None:
        """Return a context in which gradients are averaged also where autograd does not know of them beforehand."""
        return self.model.trusting() if isinstance(self.model, _Redirected) else None

    def accumulating(self) -> AbstractContextManager[Any] | None:
        """Return a context in which gradients stay with their process."""
        return self.model.no_sync() if isinstance(self.model, _Redirected) else None

    def before_backward(self, loss: Tensor) -> None:
        """Announce a backward pass from inside of a step, so that its gradients are averaged."""
        model = self.model
        if isinstance(model, _Redirected) and torch.is_grad_enabled():
            model.require_backward_grad_sync = True
            model.announce(loss)

    def average_gradients(self) -> None:
        """Average the gradients that processes kept for themselves."""
        if self.module is None or not isinstance(self.model, _Redirected):
            return
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                # a parameter that this process did not use may have been used by another
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.reduce(own)

    def before_evaluation(self) -> None:
        """Send the first process's buffers, such as running means, to all, as each training step does."""
        if self.module is None or not self._ddp_kwargs.get("broadcast_buffers", True) or not dist.is_initialized():
            return
        for buffer in self.module.buffers():
            dist.broadcast(buffer, 0)


class _Redirected(DistributedDataParallel):
    """DistributedDataParallel around a module, whose forward pass is any call of the module's."""

    _accumulators: list[tuple[Tensor, Any]] | None = None
    _task = -1
    _trusting = False

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make ``call`` the forward pass: what it does with the module, and its backward, is averaged."""
        own = self.module.__dict__
        before = own.get("forward")

        def forward(*args: Any, **kwargs: Any) -> Any:
            # the step calls the module itself, and means the module's own forward
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before
            return call(*args, **kwargs)

        own["forward"] = forward
        try:
            return self(*args, **kwargs)
        finally:
            if own.get("forward") is forward:
                del own["forward"]

    def run_unannounced(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make ``call`` a forward pass that no backward pass need follow."""
        synced, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            return self.run(call, *args, **kwargs)
        finally:
            self.require_backward_grad_sync = synced

    def announce(self, loss: Tensor) -> None:
        """Get the reducer ready for the backward pass of a loss that did not come out of `forward`."""
        self._get_ready([loss])

    def watched(self, output: Any) -> Any:
        """Average gradients in every backward pass that reaches tensors of ``output``."""
        if self._accumulators is None:
            # the nodes where gradients end; they live as long as somebody holds them
            views = [(p, p.view_as(p).grad_fn) for p in self.module.parameters() if p.requires_grad]
            self._accumulators = [(p, view.next_functions[0][0]) for p, view in views if view is not None]
        watches = []
        apply_to_tensors(output, lambda tensor: watches.append(tensor) if tensor.grad_fn is not None else None)
        for tensor in watches:
            tensor.register_hook(self._reached)  # type: ignore[no-untyped-call]
        if not watches:
            # what the tensors are in is nothing that can be looked into
            self._get_ready([])
        return output

    def _reached(self, gradient: Tensor) -> None:
        """Get the reducer ready, once in a backward pass that reaches parameters."""
        task = torch._C._current_graph_task_id()
        if task == self._task or not self.require_backward_grad_sync:
            return
        nodes = self._accumulators or []
        if self.find_unused_parameters:
            used = [parameter for parameter, node in nodes if torch._C._will_engine_execute_node(node)]
        else:
            used = next(([p] for p, node in nodes if torch._C._will_engine_execute_node(node)), [])
        if not used and not (self._trusting and any(parameter.requires_grad for parameter, _ in nodes)):
            return  # as in `torch.autograd.grad` with respect to inputs
        self._task = task
        with torch.enable_grad():
            self._get_ready([parameter.view_as(parameter) for parameter in used])

    @contextmanager
    def trusting(self) -> Generator[None, None, None]:
        """Take a backward pass for one that reaches parameters: checkpointed parts hide theirs until they run."""
        self._trusting = True
        try:
            yield
        finally:
            self._trusting = False

    def _get_ready(self, reached: list[Tensor]) -> None:
        # a second forward pass may not overwrite the buffers of a first one, but the one after a backward pass may
        self.require_forward_param_sync = True
        self.reducer._rebuild_buckets()
        self.reducer.prepare_for_backward(reached if self.find_unused_parameters and not self.static_graph else [])


def _settle_buckets(model: _Redirected) -> None:
    """Average gradients of zero once, so that the buckets have their final layout from the first step on.

    They are laid out anew, in the order in which gradients arrived, after the first backward pass. With three and more
    processes another layout adds numbers up in another order: a resumed run would differ from one that was never
    interrupted.
    """
    with torch.enable_grad():
        model.run(_nothing, model.module).backward()
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            parameter.grad = None


def _nothing(module: nn.Module) -> Tensor:
    """Return zero, computed of all parameters in training."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    total = torch.zeros((), device=trained[0].device)
    for parameter in trained:
        total = total + (parameter.sum() * 0.0).to(total)
    return total
