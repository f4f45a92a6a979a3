# SPDX-License-Identifier: Apache-2.0
"""The names that the flag ``strategy`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from leyden.core.errors import MisconfigurationException

GROUP = "leyden.strategies"
_DDP = "leyden.core.strategies.ddp:DDPStrategy"
_FSDP = "leyden.core.strategies.fsdp:FSDPStrategy"
_METHODS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}


class _Strategies:
    """Strategies by name: the built-in ones, those that were registered, and those of installed distributions.

    Examples:
        >>> from leyden.core.strategies import StrategyRegistry
        >>> StrategyRegistry.get("ddp_find_unused_parameters_true").strategy_name, "fsdp" in StrategyRegistry
        ('ddp', True)
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[Any, str, dict[str, Any]]] = {}
        self._scanned = False
        for name, method in _METHODS.items():
            self._add(name, _DDP, {"start_method": method})
            for unused in (False, True):
                arguments = {"start_method": method, "find_unused_parameters": unused}
                self._add(f"{name}_find_unused_parameters_{str(unused).lower()}", _DDP, arguments)
        self._add("single_device", "leyden.core.strategies.single_device:SingleDeviceStrategy", {})
        self._add("dp", "leyden.core.strategies.dp:DataParallelStrategy", {})
        self._add("fsdp", _FSDP, {})
        self._add("fsdp_cpu_offload", _FSDP, {"cpu_offload": True})

    def _add(self, name: str, made: Any, arguments: dict[str, Any], description: str = "") -> None:
        self._made[name] = made, description, arguments

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        found: dict[str, str] = {}
        for entry in entry_points(group=GROUP):
            owner = entry.dist.name if entry.dist is not None else entry.value
            if entry.name in found and found[entry.name] != owner:
                raise MisconfigurationException(
                    f"the strategy {entry.name!r} comes from two distributions, {found[entry.name]} and {owner}:"
                    " uninstall one of them."
                )
            found[entry.name] = owner
            if entry.name not in self._made:
                self._add(entry.name, entry.value, {}, f"from {owner}")

    def register(
        self,
        name: str,
        strategy: Callable[..., Any] | None = None,
        description: str = "",
        override: bool = False,
        **init_params: Any,
    ) -> Callable[..., Any]:
        """Give a strategy a name; also a decorator of its class.

        Args:
            name: What the flag takes.
            strategy: The class.
            description: What it is for.
            override: Whether a name that is taken may be given again.
            **init_params: Arguments of the class.

        Raises:
            MisconfigurationException: The name is taken, or no text.
        """
        if not isinstance(name, str):
            raise MisconfigurationException(f"`name` must be a str; got {name!r}.")
        if name in self._made and not override:
            raise MisconfigurationException(f"'{name}' is already present in the registry. HINT: Use `override=True`.")

        def add(made: Callable[..., Any]) -> Callable[..., Any]:
            self._add(name, made, init_params, description)
            return made

        return add if strategy is None else add(strategy)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a new strategy by its name.

        Raises:
            KeyError: There is none, and no ``default``.
        """
        self._scan()
        if name not in self._made:
            if default is not None:
                return default
            raise KeyError(f"'{name}' not found in registry. Available names: {', '.join(self)}")
        made, _, arguments = self._made[name]
        if isinstance(made, str):
            module, attribute = made.split(":")
            made = getattr(import_module(module), attribute)
        return made(**arguments)

    def remove(self, name: str) -> None:
        """Take a name out."""
        self._made.pop(name)

    def available_strategies(self) -> list[str]:
        """Return all names."""
        return list(self)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._made

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._made))

    def __len__(self) -> int:
        self._scan()
        return len(self._made)


StrategyRegistry = _Strategies()
