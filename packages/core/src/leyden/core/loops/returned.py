# SPDX-License-Identifier: Apache-2.0
"""What ``training_step`` returned: its loss, its weight, and what the hooks after it get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leyden.core.errors import MisconfigurationException

Outputs = dict[str, Any]


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what ``training_step`` returned.

    Raises:
        MisconfigurationException: It is neither a tensor, a dict with ``"loss"``, nor None.
    """
    if output is None or isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        if "loss" not in output:
            raise MisconfigurationException(
                "In automatic_optimization, when `training_step` returns a dict, the 'loss' key needs to be present;"
                f" got the keys {sorted(map(str, output))}."
            )
        loss = output["loss"]
        if isinstance(loss, Tensor):
            return loss
        raise MisconfigurationException(
            "In automatic_optimization, when `training_step` returns a dict, the 'loss' key needs to be present and"
            f" hold a tensor; the 'loss' that `training_step` returned must be a tensor; got {type(loss).__name__}:"
            f" {loss!r}."
        )
    raise MisconfigurationException(
        "In automatic optimization, `training_step` must return a Tensor, a dict, or None (where the step will be"
        f" skipped); got {type(output).__name__}: {output!r}."
    )


def weight_of(output: Any) -> Any:
    """Return the ``"weight"`` (tokens, samples) of what ``training_step`` returned, or None.

    Raises:
        MisconfigurationException: It is neither a number of at least 0 nor a tensor with one element.
    """
    weight = output.get("weight") if isinstance(output, Mapping) else None
    valid = weight is None or (isinstance(weight, Tensor) and weight.numel() == 1)
    if valid or (isinstance(weight, (int, float)) and weight >= 0):
        return weight.detach() if isinstance(weight, Tensor) else weight
    raise MisconfigurationException(
        "the 'weight' that `training_step` returned must be a number of at least 0 or a tensor with one element; got"
        f" {weight!r}."
    )


def outputs_of(output: Any) -> Outputs:
    """Return what ``on_train_batch_end`` gets: the unscaled loss, detached, and what else the step returned."""
    if output is None:
        return {}
    if isinstance(output, Tensor):
        return {"loss": output.detach()}
    outputs = dict(output)
    if isinstance(outputs.get("loss"), Tensor):
        outputs["loss"] = outputs["loss"].detach()
    return outputs
