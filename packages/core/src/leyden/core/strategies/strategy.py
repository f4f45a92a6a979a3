# SPDX-License-Identifier: Apache-2.0
"""What every strategy can do: know devices and processes. As it stands, it is that of one process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.accelerators.cpu import CPUAccelerator
from leyden.core.precision.precision import Precision

T = TypeVar("T")


class Strategy:
    """How a run spreads over devices and processes.

    A strategy knows devices and processes and nothing of loops. Whoever writes one derives from this class, which is
    the strategy of a single process, and overrides what several processes do differently.

    Args:
        accelerator: What knows the kind of device; the CPU's if None.
        precision_plugin: The number format; the plain one if None.

    Attributes:
        strategy_name: The name that the flag ``strategy`` takes.
        root_device: The device of this process.
        module: The user's module, once `setup_module` has it.
        model: What stands around the module, such as DistributedDataParallel, or the module itself.
        launcher: What starts the other processes, or None where they exist already or none are needed.
        sharded: Whether every process must run every forward pass, because parameters are spread over them.
        rests: Whether a process may take part in a step without a batch, by `resting_loss`.
        state_dict_type: ``"full"`` if a checkpoint is one file, ``"sharded"`` if processes write a folder together.
        reads_shards: Whether states that are loaded may hold tensors that still stand on a disk (`shards.Stored`).
    """

    strategy_name = ""
    state_dict_type: Literal["full", "sharded"] = "full"
    sharded = False
    reads_shards = False
    rests = False
    launcher: Any = None

    def __init__(self, accelerator: Accelerator | None = None, precision_plugin: Precision | None = None) -> None:
        # what was given, and not filled in, may not contradict the Trainer's flags
        self._accelerator, self._precision_plugin = accelerator, precision_plugin
        self.accelerator: Accelerator = CPUAccelerator() if accelerator is None else accelerator
        self.precision_plugin = Precision() if precision_plugin is None else precision_plugin
        self.root_device = torch.device("cpu")
        self.module: nn.Module | None = None
        self.model: nn.Module | None = None

    # -- who and where -------------------------------------------------------------------------------------------------

    @property
    def global_rank(self) -> int:
        """Number of this process among all."""
        return 0

    @property
    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return 0

    @property
    def node_rank(self) -> int:
        """Number of this machine."""
        return 0

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return 1

    @property
    def num_nodes(self) -> int:
        """How many machines there are."""
        return 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process."""
        return self.global_rank == 0

    @property
    def parallel_devices(self) -> list[torch.device]:
        """The devices of this machine that take part."""
        return [self.root_device]

    @property
    def side_group(self) -> Any:
        """A process group of the CPU, for flags that travel beside the training; None with one process."""
        return None

    @property
    def group(self) -> Any:
        """The process group for values and states on the run's devices; None with one process."""
        return None

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int] | None:
        """How a sampler of the user's own would split the data; None with one process."""
        return None

    # -- the life of a run ---------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Learn, in a process that a launcher has just started, who one is."""

    def setup_environment(self) -> None:
        """Make the device ready, and meet the other processes."""
        self.accelerator.setup_device(self.root_device)

    def setup_module(self, module: nn.Module, move_to_device: bool = True) -> None:
        """Bring a module to its device and format, before optimisers are made from its parameters.

        Args:
            module: The module.
            move_to_device: False for a module that stands where it should.
        """
        module = self.precision_plugin.convert_module(module)
        self.module = self.model = module.to(self.root_device) if move_to_device else module

    def setup_training(self, optimizers: Sequence[Optimizer], *, automatic: bool = True) -> None:
        """Put around the module what its training needs, once its optimisers are there.

        Args:
            optimizers: The optimisers.
            automatic: Whether the loops call ``backward``; False where the user's step does.
        """

    def first_step_done(self) -> None:
        """Note that the first optimisation step is behind all processes: from here on nobody waits long."""

    def teardown(self) -> None:
        """Let go of what stands around the module, and of the device's memory; the module can still be saved."""
        if self.module is not None and self.root_device.type != "cpu":
            self.module.cpu()
        self.model = self.module
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    # -- a step --------------------------------------------------------------------------------------------------------

    def step_method(self, name: str) -> Callable[..., Any]:
        """Return the module's method of a name (``"training_step"``) as it runs under this strategy."""
        method: Callable[..., Any] = getattr(self.module, name)
        return method

    def forward_pass(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call of the module as it runs under this strategy, in a loop that this package does not know.

        Any backward pass that reaches what the call gives is part of the training, whenever it comes: after other
        calls, after several calls of this one, or not at all.

        Args:
            call: The module itself, for its ``forward``, or a method of it.
        """
        return call

    def resting_loss(self) -> Tensor:
        """Return a loss of zero for a process that has no batch, by whose backward pass it takes part in the step."""
        raise NotImplementedError(f"{type(self).__name__} has no steps without a batch.")

    def inside_backward(self) -> AbstractContextManager[Any] | None:
        """Return a context for a backward pass over what `forward_pass` gave; None if it makes no difference."""
        return None

    def accumulating(self) -> AbstractContextManager[Any] | None:
        """Return a context for a batch that does not close its window: processes need not agree on gradients yet.

        Returns:
            The context, to be entered for one forward and backward pass; None if there is nothing to leave out.
        """
        return None

    def before_backward(self, loss: Tensor) -> None:
        """Get ready for a backward pass that the user's step begins itself (manual optimisation)."""

    def average_gradients(self) -> None:
        """Exchange the gradients that `accumulating` held back, where a window ends without another backward pass."""

    def before_evaluation(self) -> None:
        """Make what a forward pass reads, such as running means, the same on every process."""

    def clip_gradients(
        self,
        parameters: Sequence[Tensor],
        value: float,
        algorithm: str,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
    ) -> Tensor | None:
        """Clip gradients over all processes.

        Args:
            parameters: The parameters of one optimiser.
            value: The largest norm or absolute value.
            algorithm: ``"norm"`` or ``"value"``.
            norm_type: Which norm: 2 for the Euclidean, ``inf`` for the largest absolute value.
            error_if_nonfinite: Whether a norm that is infinite or no number is an error.

        Returns:
            The norm before clipping; None where values are clipped.

        Raises:
            RuntimeError: The norm is not finite, and that is an error.
        """
        if algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, value)
            return None
        return torch.nn.utils.clip_grad_norm_(parameters, value, norm_type, error_if_nonfinite)

    # -- among processes -----------------------------------------------------------------------------------------------

    def barrier(self, name: str | None = None) -> None:
        """Wait until every process is here."""

    def broadcast(self, obj: T, src: int = 0) -> T:
        """Return what process ``src`` has: any object that can be pickled."""
        return obj

    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        """Return a tensor reduced over all processes.

        Args:
            tensor: The tensor; anything else comes back as it is.
            group: Some of the processes; None means all.
            reduce_op: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.
        """
        return tensor

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Return the tensors of all processes, stacked; with one process the tensor as it is."""
        return tensor

    def gather_objects(self, obj: T) -> list[T]:
        """Return what every process has, in the order of their ranks."""
        return [obj]

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return whether all processes, or any of them, decided for it."""
        return decision

    def any_decision(self, decision: bool) -> bool:
        """Return whether any process decided for it: for what each reads off its own clock."""
        return self.reduce_boolean_decision(decision, all=False)

    # -- state ---------------------------------------------------------------------------------------------------------

    def model_state_dict(self) -> dict[str, Any]:
        """Return the whole module's state, on the first process at least. Every process calls it."""
        assert self.module is not None
        return self.module.state_dict()

    def load_model_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Load a whole module's state."""
        assert self.module is not None
        self.module.load_state_dict(state_dict, strict=strict)

    def optimizer_state_dict(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimiser's whole state, on the first process at least. Every process calls it."""
        return optimizer.state_dict()

    def load_optimizer_state_dict(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        """Load an optimiser's whole state."""
        optimizer.load_state_dict(state_dict)

    def saved_model_state(self) -> dict[str, Any]:
        """Return the module's state as it goes into a checkpoint. Every process calls it."""
        return self.model_state_dict()

    def saved_optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimiser's state as it goes into a checkpoint. Every process calls it."""
        return self.optimizer_state_dict(optimizer)

    # -- making tensors ------------------------------------------------------------------------------------------------

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Generator[None, None, None]:
        """Make tensors on the device of the run; ``empty_init`` leaves parameters as the memory was."""
        filling = _NotFilled() if empty_init else nullcontext()
        with self.root_device, self.precision_plugin.tensor_init_context(), filling:
            yield

    def model_sharded_context(self) -> AbstractContextManager[Any]:
        """Run ``configure_model``: parameters are made where they will be needed."""
        return nullcontext()


class _NotFilled(TorchFunctionMode):
    """Makes the functions of `torch.nn.init` return their tensor as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
