# SPDX-License-Identifier: Apache-2.0
"""Kinds of devices by name: core's own, those that a program registers, and those that distributions bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError

GROUP = "leyden.accelerators"
# by where they are defined, so that a name costs no import until it is asked for
OWN = {
    "cpu": "leyden.core.accelerators.cpu:CPUAccelerator",
    "cuda": "leyden.core.accelerators.cuda:CUDAAccelerator",
    "mps": "leyden.core.accelerators.mps:MPSAccelerator",
    "tpu": "leyden.core.accelerators.xla:XLAAccelerator",
    "xpu": "leyden.core.accelerators.xpu:XPUAccelerator",
}
# what the flag takes besides: the choice among several kinds, and a second name of "tpu"
RESERVED = ("auto", "gpu", "xla")


class _AcceleratorRegistry(Mapping[str, dict[str, Any]]):
    """The names that the flag ``accelerator`` takes.

    An installed distribution adds one by an entry point of the group ``leyden.accelerators``: the name, and the class.
    Entry points are looked up when a name is asked for that is neither core's own nor registered.
    """

    def __init__(self) -> None:
        self._registered: dict[str, dict[str, Any]] = {}
        self._removed: set[str] = set()

    def register(
        self,
        name: str,
        accelerator: Callable[..., Any] | None = None,
        description: str = "",
        override: bool = False,
        **init_params: Any,
    ) -> Callable[..., Any]:
        """Give a kind of device a name; also as a decorator of its class.

        Args:
            name: The name.
            accelerator: The class; None where this decorates it.
            description: What to say about it.
            override: Whether it may take the place of another one.
            **init_params: What its class is called with.

        Returns:
            The class, or the decorator.

        Raises:
            MisconfigurationTypeError: The name is no text.
            MisconfigurationException: The name is taken.

        Examples:
            >>> from leyden.core.accelerators import AcceleratorRegistry, CPUAccelerator
            >>> @AcceleratorRegistry.register("two", description="two processes on the CPU")
            ... class TwoProcesses(CPUAccelerator):
            ...     @staticmethod
            ...     def auto_device_count():
            ...         return 2
            >>> AcceleratorRegistry.get("two").auto_device_count()
            2
            >>> AcceleratorRegistry.remove("two")
        """
        if not isinstance(name, str):
            raise MisconfigurationTypeError(f"`name` must be a str, found {name!r}.")
        if name in RESERVED:
            raise MisconfigurationException(f"`accelerator='{name}'` has a meaning of its own: register another name.")
        if name in self and not override:
            raise MisconfigurationException(f"'{name}' is already present in the registry. HINT: Use `override=True`.")

        def add(accelerator: Callable[..., Any]) -> Callable[..., Any]:
            self._registered[name] = {
                "description": description,
                "init_params": init_params,
                "accelerator": accelerator,
                "accelerator_name": name,
            }
            self._removed.discard(name)
            return accelerator

        return add if accelerator is None else add(accelerator)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a new object of the kind of device that has a name.

        Args:
            name: The name.
            default: What to return if there is none; None raises.

        Raises:
            KeyError: There is none.
            MisconfigurationException: Two distributions bring it.
        """
        if name in self:
            record = self[name]
            return record["accelerator"](**record["init_params"])
        if default is not None:
            return default
        names = ", ".join(sorted(self.available_accelerators()))
        raise KeyError(f"'{name}' not found in registry. Available names: {names}")

    def remove(self, name: str) -> None:
        """Forget a name.

        Raises:
            KeyError: There is none.
        """
        if name not in self:
            raise KeyError(name)
        self._registered.pop(name, None)
        self._removed.add(name)

    def available_accelerators(self) -> set[str]:
        """Return all names."""
        return set(self)

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self:
            raise KeyError(name)
        if name not in self._registered:
            kind = _load(OWN[name]) if name in OWN else _only(name, _distributed()[name]).load()
            self.register(name, kind, description=kind.__name__, override=True)
        return self._registered[name]

    def __contains__(self, name: object) -> bool:
        if name in self._removed:
            return False
        return name in self._registered or name in OWN or name in _distributed()

    def __iter__(self) -> Iterator[str]:
        return (name for name in {**OWN, **_distributed(), **self._registered} if name not in self._removed)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __str__(self) -> str:
        return f"Registered Accelerators: {', '.join(sorted(self))}"


def _load(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    kind: Callable[..., Any] = getattr(import_module(module), name)
    return kind


@cache
def _distributed() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        same = found.setdefault(entry.name.lower(), [])
        # an editable install and its source folder on the path show one distribution twice
        if all(entry.value != other.value for other in same):
            same.append(entry)
    return found


def _only(name: str, entries: list[EntryPoint]) -> EntryPoint:
    if len(entries) > 1:
        owners = " and ".join(sorted(e.dist.name if e.dist is not None else e.value for e in entries))
        raise MisconfigurationException(f"the accelerator {name!r} is registered by {owners}: uninstall one of them.")
    return entries[0]


AcceleratorRegistry = _AcceleratorRegistry()
