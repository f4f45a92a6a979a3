# SPDX-License-Identifier: Apache-2.0
"""Leyden's training engine: put a model into a `LightningModule`, and a `Trainer` does the engineering."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core import accelerators as accelerators
    from leyden.core import callbacks as callbacks
    from leyden.core import demos as demos
    from leyden.core import fabric as fabric
    from leyden.core import loggers as loggers
    from leyden.core import plugins as plugins
    from leyden.core import precision as precision
    from leyden.core import profilers as profilers
    from leyden.core import strategies as strategies
    from leyden.core import utilities as utilities
    from leyden.core.callback import Callback as Callback
    from leyden.core.datamodule import LightningDataModule as LightningDataModule
    from leyden.core.fabric.fabric import Fabric as Fabric
    from leyden.core.module import LightningModule as LightningModule
    from leyden.core.seeding import isolate_rng as isolate_rng
    from leyden.core.seeding import seed_everything as seed_everything
    from leyden.core.trainer.trainer import Trainer as Trainer

    __version__: str
else:
    _LAZY = {
        "Callback": "callback",
        "Fabric": "fabric.fabric",
        "LightningDataModule": "datamodule",
        "LightningModule": "module",
        "Trainer": "trainer.trainer",
        "isolate_rng": "seeding",
        "seed_everything": "seeding",
    }
    _ROOMS = (
        "accelerators",
        "callbacks",
        "demos",
        "fabric",
        "loggers",
        "plugins",
        "precision",
        "profilers",
        "strategies",
        "utilities",
    )

    def __getattr__(name):
        from importlib import import_module

        if name in _LAZY:
            value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        elif name in _ROOMS:
            value = import_module(f"{__name__}.{name}")
        elif name == "__version__":
            from importlib.metadata import version

            value = version("leyden-core")
        else:
            from difflib import get_close_matches

            near = get_close_matches(name, __all__)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Callback",
    "Fabric",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "accelerators",
    "callbacks",
    "demos",
    "fabric",
    "isolate_rng",
    "loggers",
    "plugins",
    "precision",
    "profilers",
    "seed_everything",
    "strategies",
    "utilities",
]
