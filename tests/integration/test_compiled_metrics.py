# SPDX-License-Identifier: Apache-2.0
"""Metrics in a compiled training step run eagerly and count what they count in an eager one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.metrics import Accuracy

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Classifier(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.accuracy = nn.Linear(4, 3), Accuracy(task="multiclass", num_classes=3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        scores = self.layer(x)
        loss = nn.functional.cross_entropy(scores, y)
        self.accuracy(scores, y)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


# torch's own warning, of how it goes on behind a cut in the graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_metric_counts_the_same_and_compiles_nothing_anew() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 8, 4, generator=generator), torch.randint(3, (6, 8), generator=generator)
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    values = []
    for compile in (False, {"backend": backend}):
        trainer = L.Trainer(**QUIET, max_epochs=4, compile=compile)
        trainer.fit(Classifier(), list(zip(x, y, strict=True)))
        values.append({name: round(float(value), 6) for name, value in trainer.callback_metrics.items()})
    assert values[0] == values[1]
    assert set(values[0]) == {"accuracy", "accuracy_step", "accuracy_epoch", "loss"}
    assert 1 <= len(graphs) <= 6
