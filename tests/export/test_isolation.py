"""A module comes back from an export bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from leyden.export import ExportError, export, verify


class Everything(nn.Module):
    """Frozen and training parts, statistics, an RNN, a plain tensor, and a history that forward writes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.scale = torch.tensor(3.0)
        self.history = []
        self.last = None

    def forward(self, x):
        y = self.lstm(self.dropout(self.norm(x)).unsqueeze(1))[0].squeeze(1)
        self.history.append(y)
        self.last = y
        return y * self.scale


@pytest.fixture
def module():
    module = Everything().train()
    module.lstm.eval()
    module.norm.weight.requires_grad_(False)
    module(torch.randn(8, 4)).sum().backward()
    module.history.clear()
    module.last = None
    return module


def states(module):
    return {
        "values": {name: tensor.detach().clone() for name, tensor in module.state_dict().items()},
        "objects": {name: id(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]},
        "storages": {name: tensor.data_ptr() for name, tensor in module.named_parameters()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()},
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "training": [m.training for m in module.modules()],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def assert_same(before, after):
    for kind in before:
        if kind in ("values", "grads"):
            for name, tensor in before[kind].items():
                other = after[kind][name]
                assert (tensor is None) == (other is None)
                assert tensor is None or torch.equal(tensor, other), name
        elif kind == "torch":
            assert torch.equal(before[kind], after[kind])
        else:
            assert before[kind] == after[kind], kind


def test_a_module_comes_back_after_an_export_and_a_verification(module, tmp_path):
    before = states(module)
    export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 4))
    torch.set_rng_state(before["torch"])
    assert_same(before, states(module))
    batch = torch.ones(5, 4)
    verify(tmp_path / "m.onnx", module, batch)
    assert_same(before, states(module))
    assert module.history == []
    assert module.last is None
    assert type(module.scale) is torch.Tensor


def test_random_states_do_not_move(module, tmp_path):
    inputs = torch.randn(2, 4)
    before = states(module)
    export(module, tmp_path / "m.onnx", inputs=inputs)
    assert_same(before, states(module))


def test_a_module_comes_back_from_a_failed_export(tmp_path):
    class Branches(Everything):
        def forward(self, x):
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    module = Branches().train()
    inputs = torch.randn(2, 4)
    before = states(module)
    with pytest.raises(ExportError):
        export(module, tmp_path / "m.onnx", inputs=inputs)
    assert_same(before, states(module))
    assert module.history == []


def test_training_goes_on_after_an_export(module, tmp_path):
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    weight = module.lstm.weight_ih_l0.detach().clone()
    export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 4))
    optimizer.step()
    assert not torch.equal(weight, module.lstm.weight_ih_l0)


def test_the_example_is_not_changed(tmp_path):
    class InPlace(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    inputs = torch.ones(2, 3)
    export(InPlace(), tmp_path / "m.onnx", inputs=inputs)
    assert torch.equal(inputs, torch.ones(2, 3))
