# SPDX-License-Identifier: Apache-2.0
"""Lend a module out and get it back bit for bit."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def isolated(module: nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
    """Let a block use ``module`` in eval mode on the CPU, and undo every trace of it afterwards.

    Inside, parameters and buffers are copies on the CPU, so that nothing can reach the originals. Afterwards each
    submodule has its own training flag, attributes, parameters (the same objects on the same storage, with their
    ``requires_grad`` and ``grad``) and buffers, and the random number generators of Python, NumPy and torch stand where
    they stood.

    Args:
        module: The module.
        dtype: Floating-point dtype of the copies; None keeps each one's own.
    """
    with ExitStack() as stack:
        stack.callback(_random_states())
        for child in module.modules():
            stack.callback(_attributes(child))
        for parameter in module.parameters():
            stack.callback(_lend(parameter, dtype))
        _copy_tensors(module, dtype)
        stack.enter_context(torch.no_grad())
        if dtype is not None:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(dtype)
        module.eval()
        yield


def _random_states() -> Callable[[], None]:
    """Remember all generators; NumPy's only where somebody has imported NumPy."""
    cpu, python = torch.get_rng_state(), random.getstate()
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if in_use else []
    numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    def restore() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if numpy is not None:
            sys.modules["numpy"].random.set_state(numpy)

    return restore


def _attributes(module: nn.Module) -> Callable[[], None]:
    """Remember the attributes of one submodule and the items of its containers: an RNN's flat weights, a history."""
    attributes = dict(module.__dict__)
    containers = [
        (value, value.copy()) for value in attributes.values() if type(value) in (list, dict, set, OrderedDict)
    ]

    def restore() -> None:
        for value, items in containers:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)
        module.__dict__.clear()
        module.__dict__.update(attributes)

    return restore


def _lend(parameter: nn.Parameter, dtype: torch.dtype | None) -> Callable[[], None]:
    """Swap a parameter's storage for a copy: the object stays, so that every reference to it goes along."""
    data, grad, requires_grad = parameter.data, parameter.grad, parameter.requires_grad
    parameter.grad = None
    parameter.data = _copied(data, dtype)

    def restore() -> None:
        parameter.data = data
        parameter.requires_grad_(requires_grad)
        parameter.grad = grad

    return restore


def _copy_tensors(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Replace buffers and plain tensor attributes by copies; one that is shared stays shared."""
    copies: dict[int, Tensor] = {}
    for child in module.modules():
        for home in (child._buffers, child.__dict__):
            table: dict[str, Any] = home
            for name, value in list(table.items()):
                if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                    table[name] = copies.setdefault(id(value), _copied(value, dtype))


def _copied(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", wanted, copy=True)


def seed_all(seed: int) -> None:
    """Start all generators from ``seed``; for use inside `isolated`, which puts them back."""
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
