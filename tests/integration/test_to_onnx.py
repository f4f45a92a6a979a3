"""A module of core exports itself through the distribution leyden-export, found by its entry point."""

import subprocess
import sys

import pytest
import torch

import leyden.core as L
from leyden.export import load


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x).relu()


def test_the_file_answers_as_the_module_and_the_module_is_as_before(tmp_path):
    model = Model()
    x = torch.randn(4, 3)
    report = model.to_onnx(tmp_path / "model.onnx", x)
    assert report.path == tmp_path / "model.onnx"
    assert torch.allclose(load(report.path)(x), model(x), atol=1e-6)
    assert model.training
    model.example_input_array = x
    assert model.to_onnx(str(tmp_path / "again.onnx")).path.exists()


def test_without_an_input():
    with pytest.raises(ValueError, match="neither `input_sample` nor"):
        Model().to_onnx("model.onnx")


def test_without_the_distribution_the_message_names_it():
    code = """
import importlib.metadata, leyden.core.exporters as exporters
exporters.entry_points = lambda **kw: []
import torch, leyden.core as L
class Model(L.LightningModule):
    example_input_array = torch.zeros(1)
try:
    Model().to_onnx("model.onnx")
except ModuleNotFoundError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "pip install 'leyden-export[onnx]'" in result.stdout, result.stderr
