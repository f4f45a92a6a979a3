# SPDX-License-Identifier: Apache-2.0
"""What `Fabric.setup` gives back: the user's module and optimisers, which do what the strategy needs by themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)
from leyden.core.fabric.loader import _FabricDataLoader
from leyden.core.strategies.strategy import Strategy

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class UnknownForwardMethod(MisconfigurationException, AttributeError):
    """A method that does not exist was marked as a forward method."""


class _FabricModule(nn.Module):
    """A module whose calls run as its strategy and number format want it; otherwise the module itself.

    Names of parameters and keys of states are the module's own. Attributes that are not found here are the module's.

    Args:
        module: The module as the user made it.
        strategy: What it was set up with.
        call: What computes its ``forward``, such as the compiled module; the module itself if None.
    """

    def __init__(self, module: nn.Module, strategy: Strategy, call: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self._strategy = strategy
        self._forward_methods = set(_STEPS)
        self.training = module.training
        # not as a part: it may be the module itself
        self.__dict__["_forward"] = in_format(strategy, module if call is None else call)
        self._original_module = module

    @property
    def module(self) -> nn.Module:
        """The module as the user made it."""
        module: nn.Module = self._modules["_original_module"]  # type: ignore[assignment]
        return module

    @property
    def device(self) -> torch.device:
        """Where the module computes."""
        first = next(self.module.parameters(), None)
        return self._strategy.root_device if first is None or self._strategy.sharded else first.device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output in the run's number format, over all processes."""
        return self._forward(*args, **kwargs)

    def mark_forward_method(self, method: MethodType | str) -> None:
        """Say that a method computes with the module's parameters, so that it runs as `forward` does.

        Args:
            method: The method or its name.

        Raises:
            MisconfigurationTypeError: It is neither.
            MisconfigurationValueError: It is ``forward`` itself.
            AttributeError: The module has no such method.
        """
        if not isinstance(method, (MethodType, str)):
            raise MisconfigurationTypeError(f"Expected a method or a string, but got: {type(method).__name__}")
        name = method if isinstance(method, str) else method.__name__
        if name == "forward":
            raise MisconfigurationValueError("You cannot mark the forward method itself as a forward method.")
        if not isinstance(getattr(self.module, name, None), MethodType):
            raise UnknownForwardMethod(
                f"You marked '{name}' as a forward method, but `{type(self.module).__name__}.{name}` does not exist or"
                " is not a method."
            )
        self._forward_methods.add(name)

    def train(self, mode: bool = True) -> _FabricModule:
        """Set the module into training mode, or out of it; then all processes take the first one's running means."""
        if self.training and not mode:
            self._strategy.before_evaluation()
        self.training = mode
        self.module.train(mode)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _FabricModule:
        """Return a module that stands by itself: a copy that follows averages, say, exchanges no gradients."""
        strategy, module = copy.copy(self._strategy), copy.deepcopy(self.module, memo)
        strategy.module = strategy.model = module
        copied = _FabricModule(module, strategy)
        copied._forward_methods |= self._forward_methods
        return copied

    # -- the module's own names ----------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's state, under its own names."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the module's state."""
        return self.module.load_state_dict(state_dict, strict=strict, assign=assign)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the module's parameters."""
        return self.module.named_parameters(*args, **kwargs)

    def named_buffers(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield the module's buffers."""
        return self.module.named_buffers(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the module's direct parts."""
        return self.module.named_children()

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Yield the module and all its parts."""
        yield from self.module.named_modules(*args, **kwargs)

    def apply(self, fn: Callable[[nn.Module], None]) -> _FabricModule:
        """Call a function with the module and all its parts."""
        self.module.apply(fn)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> _FabricModule:
        self.module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getattr__(self, name: str) -> Any:
        if "_original_module" not in self.__dict__.get("_modules", {}):
            return super().__getattr__(name)
        if name == "_original_module":
            return self._modules[name]
        found = getattr(self.module, name)
        if not isinstance(found, MethodType) or found.__self__ is not self.module:
            return found
        if name in self._forward_methods:
            return in_format(self._strategy, found)
        return found if self._passes_by_freely() else self._refusing(found, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_original_module" not in self.__dict__.get("_modules", {}):
            super().__setattr__(name, value)
            return
        own = name in self.__dict__ or hasattr(type(self), name)
        if own:
            super().__setattr__(name, value)
        if not own or hasattr(self.module, name):
            setattr(self.module, name, value)

    def _passes_by_freely(self) -> bool:
        """Tell whether nothing is missed where a method computes without the strategy."""
        strategy = self._strategy
        return not strategy.sharded and (strategy.model is strategy.module or not torch.is_grad_enabled())

    def _refusing(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a method that raises before a part of the module computes."""

        def refuse(*_: Any) -> None:
            raise MisconfigurationRuntimeError(
                f"You are calling the method `{type(self.module).__name__}.{name}()` from outside the model. To avoid"
                " issues with the currently selected strategy, explicitly mark it as a forward method with"
                f" `fabric_model.mark_forward_method({name!r})` after `fabric.setup()`."
            )

        @wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            handles = [part.register_forward_pre_hook(refuse) for part in self.module.modules()]
            try:
                return method(*args, **kwargs)
            finally:
                for handle in handles:
                    handle.remove()

        return watched


def in_format(strategy: Strategy, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call of a module as it runs under its strategy, with inputs and outputs in the run's number format."""
    precision = strategy.precision_plugin
    run = precision.around(strategy.forward_pass(call))
    if not precision.replaces("convert_input") and not precision.replaces("convert_output"):
        return run

    def converted(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = precision.convert_input((args, kwargs))
        return precision.convert_output(run(*args, **kwargs))

    return converted


class _FabricOptimizer:
    """An optimiser that steps as the run's number format wants it; otherwise the optimiser itself.

    An instance is also one of the wrapped optimiser's class, so that `isinstance` and schedulers see what the user
    made.

    Args:
        optimizer: The optimiser.
        strategy: What it was set up with.
        callbacks: Those of them that have ``on_after_optimizer_step(strategy, optimizer)`` are called after each step.
    """

    def __init__(self, optimizer: Optimizer, strategy: Strategy, callbacks: Sequence[Any] = ()) -> None:
        self._optimizer, self._strategy, self._callbacks = optimizer, strategy, callbacks
        self._first = True
        own = type(self)
        self.__class__ = type(f"Fabric{type(optimizer).__name__}", (own, type(optimizer)), {})

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser itself."""
        return self._optimizer

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the optimiser.

        Args:
            closure: Computes the loss and the gradients, if that is still to be done.
        """
        kwargs = {} if closure is None else {"closure": closure}
        result = self._strategy.precision_plugin.optimizer_step(self._optimizer, **kwargs)
        if self._first:
            self._first = False
            self._strategy.first_step_done()
        for callback in self._callbacks:
            hook = getattr(callback, "on_after_optimizer_step", None)
            if callable(hook):
                hook(strategy=self._strategy, optimizer=self._optimizer)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's whole state; every process calls it where parameters are sharded."""
        return self._strategy.optimizer_state_dict(self._optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the optimiser's whole state."""
        self._strategy.load_optimizer_state_dict(self._optimizer, state_dict)

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)


def compiled_from(module: nn.Module) -> nn.Module | None:
    """Return the module that `torch.compile` was given, if this is what it returned."""
    original = module.__dict__.get("_modules", {}).get("_orig_mod")
    return original if type(module).__name__ == "OptimizedModule" else None


def unwrapped(obj: Any) -> Any:
    """Return what the user made in place of what `Fabric.setup` or `torch.compile` made of it."""
    if isinstance(obj, nn.Module) and (inner := compiled_from(obj)) is not None:
        return unwrapped(inner)
    if isinstance(obj, _FabricModule):
        return obj.module
    if isinstance(obj, _FabricOptimizer):
        return obj.optimizer
    return obj.loader if isinstance(obj, _FabricDataLoader) else obj


def is_wrapped(obj: object) -> bool:
    """Tell whether an object was set up by Fabric.

    Args:
        obj: A module, optimiser or loader, or anything else.

    Examples:
        >>> import torch
        >>> import leyden.core as L
        >>> from leyden.core.fabric import is_wrapped
        >>> layer = torch.nn.Linear(1, 1)
        >>> is_wrapped(layer), is_wrapped(L.Fabric(accelerator="cpu", devices=1).setup(layer))
        (False, True)
    """
    if isinstance(obj, nn.Module) and (inner := compiled_from(obj)) is not None:
        obj = inner
    return isinstance(obj, (_FabricModule, _FabricOptimizer, _FabricDataLoader))


@contextmanager
def renewed(module: nn.Module, optimizers: Sequence[Optimizer]) -> Generator[None, None, None]:
    """Give optimisers the parameters that a module has after a ``with`` block in place of those it had before.

    Raises:
        MisconfigurationValueError: Parameters were replaced, and an optimiser has taken steps with the old ones.
    """
    before = {id(parameter): name for name, parameter in module.named_parameters()}
    yield
    after = dict(module.named_parameters())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            now = [after[before[id(p)]] if id(p) in before else p for p in group["params"]]
            changed = any(new is not old for new, old in zip(now, group["params"], strict=True))
            if changed and optimizer.state:
                raise MisconfigurationValueError(
                    f"The optimizer {type(optimizer).__name__} has taken steps with parameters that the strategy has"
                    " replaced. Set the module up first, make the optimizer from its parameters, and load its state"
                    " with `fabric.load`."
                )
            group["params"] = now
