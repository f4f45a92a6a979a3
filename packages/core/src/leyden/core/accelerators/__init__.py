# SPDX-License-Identifier: Apache-2.0
"""Kinds of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.core.accelerators.accelerator import Accelerator as Accelerator
    from leyden.core.accelerators.cpu import CPUAccelerator as CPUAccelerator
    from leyden.core.accelerators.cuda import CUDAAccelerator as CUDAAccelerator
    from leyden.core.accelerators.cuda import find_usable_cuda_devices as find_usable_cuda_devices
    from leyden.core.accelerators.mps import MPSAccelerator as MPSAccelerator
    from leyden.core.accelerators.registry import AcceleratorRegistry as AcceleratorRegistry
    from leyden.core.accelerators.xla import XLAAccelerator as XLAAccelerator
    from leyden.core.accelerators.xpu import XPUAccelerator as XPUAccelerator
else:
    _LAZY = {
        "Accelerator": "leyden.core.accelerators.accelerator",
        "AcceleratorRegistry": "leyden.core.accelerators.registry",
        "CPUAccelerator": "leyden.core.accelerators.cpu",
        "CUDAAccelerator": "leyden.core.accelerators.cuda",
        "MPSAccelerator": "leyden.core.accelerators.mps",
        "XLAAccelerator": "leyden.core.accelerators.xla",
        "XPUAccelerator": "leyden.core.accelerators.xpu",
        "find_usable_cuda_devices": "leyden.core.accelerators.cuda",
    }

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Accelerator",
    "AcceleratorRegistry",
    "CPUAccelerator",
    "CUDAAccelerator",
    "MPSAccelerator",
    "XLAAccelerator",
    "XPUAccelerator",
    "find_usable_cuda_devices",
]
