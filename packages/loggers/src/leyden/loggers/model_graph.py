# SPDX-License-Identifier: Apache-2.0
"""A model's graph by tracing, without a change to the model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def add_graph(client: SummaryWriter, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Trace the model in evaluation mode and write its graph.

    Args:
        client: Where the graph goes.
        model: The model; the mode of each of its modules is restored.
        inputs: Arguments of its ``forward``; they are moved to the model's device.

    Raises:
        RuntimeError: If the model can not be traced.
    """
    parameter = next(iter(model.parameters()), None)
    if parameter is not None:
        inputs = tuple(tensor.to(parameter.device) for tensor in inputs)
    # The tracer sets the mode of the whole tree, also of parts that the user froze.
    modes = {module: module.training for module in model.modules()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client.add_graph(model, inputs)
    finally:
        for module, training in modes.items():
            module.training = training
