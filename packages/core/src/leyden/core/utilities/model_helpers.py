# SPDX-License-Identifier: Apache-2.0
"""Where ported code asks whether somebody overrode a hook."""

from __future__ import annotations

from leyden.core.callback import Callback
from leyden.core.datamodule import LightningDataModule
from leyden.core.hooks import replaces
from leyden.core.module import LightningModule


def is_overridden(method_name: str, instance: object | None = None, parent: type | None = None) -> bool:
    """Tell whether an object has a hook of its own.

    Args:
        method_name: The hook.
        instance: A module, data module or callback; None overrides nothing.
        parent: The class that has the default, if the object is none of these.

    Raises:
        ValueError: The object is something else, and ``parent`` is not given.

    Examples:
        >>> from leyden.core.demos.boring_classes import BoringModel
        >>> from leyden.core.utilities.model_helpers import is_overridden
        >>> is_overridden("training_step", BoringModel()), is_overridden("predict_step", BoringModel())
        (True, False)
    """
    if instance is None:
        return False
    if parent is None:
        known = (LightningModule, LightningDataModule, Callback)
        parent = next((base for base in known if isinstance(instance, base)), None)
    if parent is None:
        raise ValueError(f"Expected a parent: {instance!r} is no module, data module or callback.")
    return hasattr(instance, method_name) and replaces(instance, method_name, parent)


__all__ = ["is_overridden"]
