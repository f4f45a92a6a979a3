# SPDX-License-Identifier: Apache-2.0
"""`Trainer(compile=...)`: `torch.compile` around what a step computes; hooks, logs and files stay as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import MisconfigurationException, PossibleUserWarning, warn
from leyden.core.interfaces import MetricLike
from leyden.core.session import Session

_ENABLE_GRAPH = 5
# packages of metrics that torch was told to leave alone; it keeps them for the whole process
_EAGER: set[str] = set()


class Tape:
    """Stands in for the run while a compiled step runs: keeps what `self.log` gets, so that no graph breaks on it.

    The list is mutated inside the compiled function, which torch replays as a side effect with the values of that call.
    """

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []

    def log(self, name: str, value: Any, flags: tuple[Any, ...], batch_size: int | None, attribute: str | None) -> None:
        """Keep one call; a tensor is copied inside the graph, since an alias of an output costs more than a copy."""
        if isinstance(value, Tensor) and not flags[_ENABLE_GRAPH]:
            value = value.detach().clone()
        self.records.append((name, value, flags, batch_size, attribute))


def compiled_call(s: Session, step: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``training_step`` compiled, with its calls of `self.log` taken by the log book after it.

    Args:
        s: The session; ``s.flags.compile`` holds the options of `torch.compile`.
        step: The module's ``training_step``.
    """
    if "training_step" in s.compiled:
        return s.compiled["training_step"]
    leave_metrics_alone(s)
    inner = torch.compile(step, **s.flags.compile_options)
    tape, attributes, log = Tape(), s.module.__dict__, s.book.log
    records = tape.records

    def run(*args: Any) -> Any:
        attributes["_run"] = tape
        try:
            output = inner(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise _refused("training_step", error) from error
        finally:
            attributes["_run"] = s
            taken = records[:]
            records.clear()
        for record in taken:
            log(*record)
        return output

    s.compiled["training_step"] = run
    return run


def leave_metrics_alone(s: Session) -> None:
    """Let calls of metrics run eagerly in a compiled step: counters in their state would compile each step anew."""
    from torch._dynamo import trace_rules

    mine = type(s.module).__module__.partition(".")[0]
    for part in s.module.modules():
        if part is s.module or not isinstance(part, MetricLike):
            continue
        base = [cls for cls in type(part).__mro__ if issubclass(cls, MetricLike)][-1]
        package = base.__module__.rpartition(".")[0]
        if package and package != mine and package not in _EAGER:
            _EAGER.add(package)
            trace_rules.add(package)


def compiled_step(s: Session, optimizer: Optimizer) -> Callable[[], Any]:
    """Return ``optimizer.step`` compiled, or as it is where torch can not.

    A learning rate is a constant to the compiler, and each new value would compile anew; inside the step it is a
    tensor, outside a float. Another number that changes (a cycled momentum) makes the step eager for good.

    Args:
        s: The session.
        optimizer: What steps.
    """
    if id(optimizer) in s.compiled:
        return s.compiled[id(optimizer)]
    plain, bare = optimizer.step, _bare_step(optimizer)
    if bare is None:
        s.compiled[id(optimizer)] = plain
        return plain

    def whole() -> None:
        bare(optimizer)

    # torch keeps what it compiled by code object, up to a limit: each optimiser needs one of its own
    whole.__code__ = whole.__code__.replace(co_name=f"{type(optimizer).__name__}_step")
    inner = torch.compile(whole, **(s.flags.compile_options | {"fullgraph": True}))
    rates: list[Tensor] = []
    constants: Any = None
    eager = False

    def step() -> Any:
        nonlocal eager, constants
        groups = optimizer.param_groups
        if eager:
            return plain()
        now = [_constants(group) for group in groups]
        if len(rates) != len(groups):
            rates[:] = [torch.zeros((), dtype=torch.float64) for _ in groups]
            constants = now
        if now != constants:
            eager = _fall_back(optimizer, "numbers of its parameter groups besides `lr` change")
            return plain()
        held = [group["lr"] for group in groups]
        try:
            for group, rate, value in zip(groups, rates, held, strict=True):
                if not isinstance(value, Tensor):
                    group["lr"] = rate.fill_(value)
            with torch.no_grad():
                inner()
        except torch._dynamo.exc.TorchDynamoException as error:
            eager = _fall_back(optimizer, _reason(error))
        finally:
            for group, value in zip(groups, held, strict=True):
                group["lr"] = value
        if eager:
            return plain()
        optimizer._opt_called = True  # type: ignore[attr-defined] # schedulers warn where they see no step
        return None

    s.compiled[id(optimizer)] = step
    return step


def _bare_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """Return the step without the frames that torch puts around it, which can not be traced; None if more must run."""
    replaced = "step" in vars(optimizer) and not hasattr(optimizer.step, "_wrapped_by_lr_sched")
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    groups = optimizer.param_groups
    # a fused step is one kernel already
    settled = any(group.get("fused") or group.get("differentiable") or "lr" not in group for group in groups)
    if replaced or hooked or settled:
        return None
    step: Any = type(optimizer).step
    while hasattr(step, "__wrapped__") and step.__code__.co_filename == inspect.getfile(Optimizer):
        step = step.__wrapped__
    bare: Callable[[Optimizer], Any] = step
    return bare


def _constants(group: dict[str, Any]) -> list[Any]:
    """Return what the compiler takes for constant in a parameter group."""
    return [v for k, v in group.items() if k not in ("params", "lr") and isinstance(v, (int, float, tuple))]


def _fall_back(optimizer: Optimizer, reason: str) -> bool:
    warn(
        "LY-T014",
        f"`compile`: `{type(optimizer).__name__}.step` runs eagerly, since torch can not compile it: {reason}.",
        PossibleUserWarning,
    )
    return True


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _refused(what: str, error: Exception) -> MisconfigurationException:
    return MisconfigurationException(
        f"`compile`: torch.compile can not compile `{what}`: {_reason(error)}. Train with `compile=False`, or choose"
        ' another backend, for example `compile={"backend": "aot_eager"}`, which needs no compiler on the machine.'
    )
