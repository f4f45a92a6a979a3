# SPDX-License-Identifier: Apache-2.0
"""Fabric: the engine's devices, processes, number formats, data and checkpoints under a loop of the user's own."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from leyden.core.accelerators.accelerator import Accelerator
from leyden.core.errors import (
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    PossibleUserWarning,
    warn,
)
from leyden.core.fabric import saving
from leyden.core.fabric.loader import _FabricDataLoader, sharing
from leyden.core.fabric.module_run import ModuleRun
from leyden.core.fabric.reports import Reports
from leyden.core.fabric.wrappers import (
    _FabricModule,
    _FabricOptimizer,
    compiled_from,
    is_wrapped,
    renewed,
)
from leyden.core.module import LightningModule
from leyden.core.seeding import seed_everything
from leyden.core.strategies.choice import choose_strategy
from leyden.core.strategies.strategy import Strategy
from leyden.core.transfer import move_to_device


class Fabric(Reports):
    """Runs a loop of your own on the devices, strategies, number formats and checkpoints of the `Trainer`.

    Args:
        accelerator: Kind of device, as the Trainer's flag.
        strategy: How the run spreads over devices, as the Trainer's flag.
        devices: How many devices on each machine, or which, as the Trainer's flag.
        num_nodes: How many machines.
        precision: Number format, as the Trainer's flag; None for 32 bits.
        plugins: A number format or cluster environment of your own, or several plug-ins.
        callbacks: One object or several, whose methods `call` calls.
        loggers: One logger or several, which get what `log` and `log_dict` are given.

    Raises:
        MisconfigurationException: A flag has a value that is not allowed, or two contradict each other.

    Examples:
        >>> import torch
        >>> import leyden.core as L
        >>> fabric = L.Fabric(accelerator="cpu", devices=1)
        >>> model = torch.nn.Linear(2, 1)
        >>> model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> loader = fabric.setup_dataloaders(torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=4))
        >>> for batch in loader:
        ...     optimizer.zero_grad()
        ...     loss = model(batch).square().mean()
        ...     fabric.backward(loss)
        ...     optimizer.step()
    """

    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        strategy: str | Strategy = "auto",
        devices: int | str | Sequence[int] = "auto",
        num_nodes: int = 1,
        precision: int | str | None = None,
        plugins: Any = None,
        callbacks: Any = None,
        loggers: Any = None,
    ) -> None:
        engine = choose_strategy(accelerator, strategy, devices, num_nodes, precision, plugins)
        super().__init__(engine, callbacks, loggers)
        self._strategies: list[Strategy] = []
        if type(self).run is not Fabric.run:
            self.run = self._launch_run  # type: ignore[method-assign]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override this with the whole training, and call it: it is launched in every process."""

    def _launch_run(self, *args: Any, **kwargs: Any) -> Any:
        return self.launch(_run, *args, **kwargs)

    # -- setting up ----------------------------------------------------------------------------------------------------

    def setup(
        self,
        module: nn.Module,
        *optimizers: Optimizer,
        scheduler: Any = None,
        move_to_device: bool = True,
        _reapply_compile: bool = True,
    ) -> Any:
        """Set up a module and its optimisers.

        What `torch.compile` returned keeps its compiled code, which runs inside what the strategy puts around it.

        Args:
            module: The module.
            *optimizers: Its optimisers. Where the strategy replaces parameters, they get the new ones.
            scheduler: A scheduler that comes back beside them.
            move_to_device: False for a module that stands where it should.

        Returns:
            The module; with optimisers, a tuple of the module, the optimisers and the scheduler, if there is one.

        Raises:
            MisconfigurationRuntimeError: There are several processes, and `launch` was not called.
            MisconfigurationValueError: One of them was set up before.
        """
        self._check_new("model", "setup", module)
        self._check_new("optimizer", "setup", *optimizers)
        inner = compiled_from(module)
        call, original = (None, module) if inner is None else (module, inner)
        strategy = copy.copy(self._strategy)
        if move_to_device:
            self._tell_scattered(original)
        with renewed(original, optimizers):
            strategy.setup_module(original, move_to_device)
        strategy.setup_training(optimizers)
        self._strategies.append(strategy)
        wrapped = _FabricModule(original, strategy, call)
        stepped = [_FabricOptimizer(optimizer, strategy, self._callbacks) for optimizer in optimizers]
        if isinstance(original, LightningModule):
            original.trainer, original.fabric = ModuleRun(self, wrapped, stepped), self  # type: ignore[assignment]
            if not any(callback is original for callback in self._callbacks):
                self._callbacks.append(original)
        self.call("on_after_setup", fabric=self, module=wrapped)
        if not optimizers:
            return wrapped
        return (wrapped, *stepped) if scheduler is None else (wrapped, *stepped, scheduler)

    def setup_module(
        self, module: nn.Module, move_to_device: bool = True, _reapply_compile: bool = True
    ) -> _FabricModule:
        """Set up a module alone, to predict with it or to make its optimisers afterwards.

        Args:
            module: The module.
            move_to_device: False for a module that stands where it should.

        Returns:
            The module.

        Raises:
            MisconfigurationException: As `setup`.
        """
        self._check_new("model", "setup_module", module)
        wrapped: _FabricModule = self.setup(module, move_to_device=move_to_device)
        return wrapped

    def setup_optimizers(self, *optimizers: Optimizer) -> Any:
        """Set up optimisers that were made from the parameters of a module that is set up.

        Args:
            *optimizers: The optimisers.

        Returns:
            The optimiser, or a tuple of them.

        Raises:
            MisconfigurationException: There is none, one was set up before, or one has parameters without memory.
        """
        if not optimizers:
            raise MisconfigurationValueError("`setup_optimizers` requires at least one optimizer as input.")
        self._check_new("optimizer", "setup_optimizers", *optimizers)
        if any(p.is_meta for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]):
            raise MisconfigurationRuntimeError(
                "The optimizer has references to the model's meta-device parameters. Create the optimizer after setting"
                " up the model, then call `fabric.setup_optimizers(optimizer)`; or set both up with"
                " `fabric.setup(model, optimizer)`."
            )
        if self._strategy.sharded:
            self._strategy.setup_training(optimizers)
        stepped = tuple(_FabricOptimizer(optimizer, self._strategy, self._callbacks) for optimizer in optimizers)
        return stepped[0] if len(stepped) == 1 else stepped

    def setup_dataloaders(
        self,
        *dataloaders: DataLoader[Any],
        use_distributed_sampler: bool = True,
        move_to_device: bool = True,
        evaluation: bool = False,
    ) -> Any:
        """Set up loaders: batches come on the device, and each process gets its share of them.

        Of every round of batches, each process gets the one at its rank, so that all work on what one process would
        see next. Loaders that deal their data out themselves are left as they are, and end on all processes with the
        first that has no more.

        Args:
            *dataloaders: Loaders of torch. They stay as they are.
            use_distributed_sampler: Whether processes share the batches.
            move_to_device: Whether batches come on the device.
            evaluation: Whether results are measured on the batches: every sample is then some process's and no
                other's. Otherwise, samples of a last round that does not go round are left out.

        Returns:
            The loader, or a list of them.

        Raises:
            MisconfigurationException: There is none, one was set up before, or one is no loader of torch.
        """
        if not dataloaders:
            raise MisconfigurationValueError("`setup_dataloaders` requires at least one dataloader as input.")
        self._check_new("dataloader", "setup_dataloaders", *dataloaders)
        if any(not isinstance(loader, DataLoader) for loader in dataloaders):
            raise MisconfigurationTypeError("Only PyTorch DataLoader are currently supported in `setup_dataloaders`.")
        share = sharing(self._strategy, evaluation) if use_distributed_sampler else {}
        device = self.device if move_to_device else None
        ready = [_FabricDataLoader(loader, device, share) for loader in dataloaders]
        return ready[0] if len(ready) == 1 else ready

    def _check_new(self, what: str, where: str, *objects: Any) -> None:
        self._check_launched()
        if any(is_wrapped(each) for each in objects):
            article = "An" if what[0] in "aeiou" else "A"
            raise MisconfigurationValueError(
                f"{article} {what} should be passed only once to the `{where}` method. It was set up already."
            )

    def _tell_scattered(self, module: nn.Module) -> None:
        places = {parameter.device: name for name, parameter in module.named_parameters()}
        if len(places) > 1:
            found = " and ".join(f"{name!r} on {device}" for device, name in places.items())
            warn(
                "LY-F001",
                f"The model passed to `Fabric.setup()` has parameters on different devices: {found}. Since"
                f" `move_to_device=True`, all parameters will be moved to {self.device}. If this is not desired, set"
                " `Fabric.setup(..., move_to_device=False)`.",
                PossibleUserWarning,
            )

    # -- a step --------------------------------------------------------------------------------------------------------

    def backward(self, tensor: Tensor, *args: Any, model: _FabricModule | None = None, **kwargs: Any) -> None:
        """Compute gradients; it stands where ``loss.backward()`` would.

        Args:
            tensor: The loss.
            *args: Further arguments of `torch.Tensor.backward`.
            model: Which module is trained; no strategy needs to know.
            **kwargs: Further arguments of `torch.Tensor.backward`.
        """
        precision = self._strategy.precision_plugin
        scaled = precision.pre_backward(tensor)
        if self._strategy.world_size == 1:
            scaled.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        else:
            with ExitStack() as stack:
                for strategy in self._strategies:
                    if (context := strategy.inside_backward()) is not None:
                        stack.enter_context(context)
                scaled.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        precision.post_backward(tensor)

    def clip_gradients(
        self,
        module: nn.Module,
        optimizer: Optimizer | _FabricOptimizer,
        clip_val: float | int | None = None,
        max_norm: float | int | None = None,
        norm_type: float | int = 2.0,
        error_if_nonfinite: bool = True,
    ) -> Tensor | None:
        """Clip the gradients of an optimiser's parameters, by value or by their norm over all processes.

        Args:
            module: The module that the parameters belong to.
            optimizer: The optimiser.
            clip_val: The largest absolute value.
            max_norm: The largest norm.
            norm_type: Which norm: 2 for the Euclidean, ``inf`` for the largest absolute value.
            error_if_nonfinite: Whether a norm that is infinite or no number is an error.

        Returns:
            The norm before clipping; None where values are clipped.

        Raises:
            MisconfigurationValueError: Neither or both of ``clip_val`` and ``max_norm`` are given.
            RuntimeError: The norm is not finite, and that is an error.
        """
        if clip_val is not None and max_norm is not None:
            raise MisconfigurationValueError(
                "Only one of `clip_val` or `max_norm` can be set as this specifies the underlying clipping algorithm!"
            )
        if clip_val is None and max_norm is None:
            raise MisconfigurationValueError(
                "You have to specify either `clip_val` or `max_norm` to do gradient clipping!"
            )
        own: Any = optimizer.optimizer if isinstance(optimizer, _FabricOptimizer) else optimizer
        self._strategy.precision_plugin.unscale_gradients(own)
        parameters = [parameter for group in own.param_groups for parameter in group["params"]]
        if clip_val is not None:
            return self._strategy.clip_gradients(parameters, clip_val, "value")
        assert max_norm is not None
        return self._strategy.clip_gradients(parameters, max_norm, "norm", norm_type, error_if_nonfinite)

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context in which gradients stay with their process: for batches that do not end a window.

        Args:
            module: The module, as `setup` returned it.
            enabled: False for a context that does nothing.

        Raises:
            MisconfigurationTypeError: The module was not set up.
        """
        inner = compiled_from(module) if isinstance(module, nn.Module) else None
        module = module if inner is None else inner
        if not isinstance(module, _FabricModule):
            raise MisconfigurationTypeError(
                "You need to set up the model first before you can call `fabric.no_backward_sync()`:"
                f" `model = fabric.setup(model, ...)`; got {type(module).__name__}."
            )
        context = module._strategy.accumulating() if enabled else None
        return nullcontext() if context is None else context

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which operations run in the run's number format: for what is no module's forward."""
        return self._strategy.precision_plugin.forward_context()

    def to_device(self, obj: Any) -> Any:
        """Return a module, a tensor or tensors in any nesting on the device of this process."""
        return obj.to(self.device) if isinstance(obj, nn.Module) else move_to_device(obj, self.device)

    # -- making modules ------------------------------------------------------------------------------------------------

    def init_tensor(self) -> AbstractContextManager[Any]:
        """Return a context in which tensors are made on the device and in the number format of the run."""
        return self._strategy.tensor_init_context()

    def init_module(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        """Return a context in which modules are made where they will be needed.

        Args:
            empty_init: Whether parameters stay as the memory was, which saves time where a checkpoint fills them.

        Raises:
            MisconfigurationRuntimeError: There are several processes, and `launch` was not called.
        """
        self._check_launched()
        return self._strategy.tensor_init_context(empty_init=empty_init)

    def sharded_model(self) -> AbstractContextManager[Any]:
        """Return a context in which a module is made that will be sharded. `init_module` does that too."""
        self._check_launched()
        return self._strategy.model_sharded_context()

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], state: dict[str, Any], filter: saving.Filter | None = None) -> None:
        """Write a checkpoint durably. Every process calls this; the first one writes.

        Args:
            path: The file. At every instant it is absent, the old file, or the whole new one.
            state: What to save by name: modules, optimisers, loaders, everything else with ``state_dict``, and plain
                data (numbers, texts, tensors, and lists, tuples and dicts of them).
            filter: For keys of ``state``, a function of an entry's name and value that tells whether it is saved.

        Raises:
            MisconfigurationException: ``filter`` does not fit.
            CheckpointError: Something in ``state`` is no plain data, or the file can not be written; on every process.
                Files saved earlier are untouched.

        Examples:
            >>> import tempfile
            >>> import torch
            >>> import leyden.core as L
            >>> fabric = L.Fabric(accelerator="cpu", devices=1)
            >>> model = fabric.setup(torch.nn.Linear(2, 1))
            >>> path = tempfile.mkdtemp() + "/last.ckpt"
            >>> fabric.save(path, {"model": model, "step": 10})
            >>> fabric.load(path, {"model": model})
            {'step': 10}
        """
        self._check_launched()
        saving.save(self._strategy, path, state, filter)

    def load(
        self,
        path: str | os.PathLike[str],
        state: dict[str, Any] | None = None,
        strict: bool = True,
        *,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, verified, into the objects of a state. Every process calls this.

        Args:
            path: The file.
            state: What to load into, by name: objects take their state over, other values are replaced in this dict.
            strict: Whether the file must have every key of ``state``, and modules take exactly their keys.
            weights_only: False lets a file that only code can rebuild run that code. Only for files you made.

        Returns:
            What the file has beside ``state``.

        Raises:
            KeyError: The file lacks a key of ``state``. Nothing was loaded.
            CheckpointError: There is no such file, it is damaged, or only code could rebuild it.
        """
        self._check_launched()
        return saving.load(self._strategy, path, state, strict, weights_only is False)

    def load_raw(
        self,
        path: str | os.PathLike[str],
        obj: nn.Module | Optimizer | _FabricOptimizer,
        strict: bool = True,
        *,
        weights_only: bool | None = None,
    ) -> None:
        """Read a file that holds one state, as `torch.save` writes it, into a module or an optimiser.

        Args:
            path: The file.
            obj: The module or optimiser, set up or not.
            strict: Whether a module takes exactly its keys.
            weights_only: As in `load`.

        Raises:
            CheckpointError: As `load`.
        """
        state = saving.load(self._strategy, path, None, strict, weights_only is False)
        saving.load_into(self._strategy, obj, state, strict)

    @staticmethod
    def seed_everything(seed: int | None = None, workers: bool | None = None, verbose: bool = True) -> int:
        """Seed the generators of Python, NumPy and torch.

        Args:
            seed: The seed; None takes the environment's ``PL_GLOBAL_SEED``, or 0.
            workers: Whether workers of loaders are seeded too (None: yes).
            verbose: Whether to say so.
        """
        return seed_everything(seed, workers=workers is not False, verbose=verbose)


def _run(fabric: Fabric, *args: Any, **kwargs: Any) -> Any:
    return type(fabric).run(fabric, *args, **kwargs)
