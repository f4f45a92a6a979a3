"""Modules that no file can be right for are refused, with the reason and its line, and nothing is left."""

import random

import pytest
import torch
from torch import nn

from leyden.export import ExportError, ParityError, UnsupportedModuleError, export, load, verify


class BranchOnValue(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class BranchOnSize(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] < 5 else x * 3


class BranchOnFarSize(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] < 300 else x * 3


class BranchOnRemainder(nn.Module):
    def forward(self, x):
        return x * 3 if x.shape[0] % 8 == 0 else x * 2


class BranchOnOneSize(nn.Module):
    def forward(self, x):
        return x * 3 if x.shape[0] == 100 else x * 2


class BakedSize(nn.Module):
    def forward(self, x):
        return x / float(int(x.shape[0]))


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x):
        h = x[:, 0]
        for t in range(x.shape[1]):
            h = torch.tanh(self.cell(h) + x[:, t])
        return h


class CountsInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return x * self.count


class CountsAnew(CountsInPlace):
    def forward(self, x):
        self.count = self.count + 1
        return x * self.count


class CountsInPython(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class PythonRandom(nn.Module):
    def forward(self, x):
        return x * random.random()


class ReturnsSize(nn.Module):
    def forward(self, x):
        return {"y": x, "n": x.shape[0]}


def line(module, below):
    return f"{__file__}:{type(module).forward.__code__.co_firstlineno + below}"


@pytest.mark.parametrize(
    ("module", "below"), [(BranchOnValue(), 1), (CountsInPlace(), 1), (CountsAnew(), 0), (CountsInPython(), 0)]
)
def test_what_a_graph_can_not_hold_is_refused_with_its_line(module, below, tmp_path):
    with pytest.raises(UnsupportedModuleError) as caught:
        export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 3))
    assert line(module, below) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_buffer_that_forward_changes_is_named(tmp_path):
    with pytest.raises(UnsupportedModuleError, match="'count'") as caught:
        export(CountsInPlace(), tmp_path / "m.onnx", inputs=torch.randn(2, 3))
    assert [hazard.kind for hazard in caught.value.hazards] == ["state"]


@pytest.mark.parametrize("module", [BranchOnSize(), BranchOnFarSize(), BranchOnRemainder(), BranchOnOneSize()])
def test_a_branch_on_a_size_is_found_wherever_it_lies(module, tmp_path):
    with pytest.raises(ParityError, match="does not answer what the module answers") as caught:
        export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 3))
    assert "batch" in str(caught.value)
    assert caught.value.output == "output"
    assert caught.value.index == (0, 0)
    assert str(caught.value.shape) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "below", "shape"), [(BakedSize(), 1, (2, 4)), (Loop(), 3, (2, 5, 4))])
def test_a_size_that_python_used_up_is_refused_with_its_line_and_the_way_out(module, below, shape, tmp_path):
    with pytest.raises(ParityError) as caught:
        export(module, tmp_path / "m.onnx", inputs=torch.randn(shape))
    assert line(module, below) in str(caught.value)
    assert "dynamic=" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_way_out_of_a_python_loop_is_a_fixed_length(tmp_path):
    module = Loop()
    report = export(module, tmp_path / "m.onnx", inputs=torch.randn(2, 5, 4), dynamic={"x": {0: "batch"}})
    x = torch.randn(7, 5, 4)
    torch.testing.assert_close(load(report.path)(x), module(x).detach())
    with pytest.raises(ValueError, match=r"x\[1\] must be 5, got 6"):
        load(report.path)(torch.randn(2, 6, 4))


def test_random_numbers_of_python_would_be_frozen_and_are_refused(tmp_path):
    with pytest.raises(ParityError, match="draws it anew"):
        export(PythonRandom(), tmp_path / "m.onnx", inputs=torch.randn(2, 3))


def test_a_result_that_is_a_python_number_made_of_the_input_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"output\['n'\].*return it as a tensor"):
        export(ReturnsSize(), tmp_path / "m.onnx", inputs=torch.randn(2, 3))


def test_complex_results_and_bfloat16_are_refused_by_name(tmp_path):
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)

    with pytest.raises(ExportError, match=r"'output' is torch.complex64"):
        export(Spectrum(), tmp_path / "m.onnx", inputs=torch.randn(2, 8))
    with pytest.raises(ExportError, match=r"'input' is torch.bfloat16"):
        export(nn.ReLU(), tmp_path / "m.onnx", inputs=torch.randn(2, 8).bfloat16())


def test_a_file_is_not_mistaken_for_that_of_another_module(classifier, classifier_file):
    other = torch.nn.Sequential(*(type(m)(4, 8) if i == 0 else m for i, m in enumerate(classifier)))
    with pytest.raises(ParityError, match="case 'example'"):
        verify(classifier_file, other, torch.randn(2, 4))


def test_a_module_that_refuses_its_own_example_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"Linear.forward fails on inputs \(input\[2, 5\]\).*shapes cannot be mult"):
        export(nn.Linear(4, 2), tmp_path / "m.onnx", inputs=torch.randn(2, 5))


def test_a_lazy_module_must_be_called_once(tmp_path):
    with pytest.raises(ExportError, match="not initialised"):
        export(nn.LazyLinear(2), tmp_path / "m.onnx", inputs=torch.randn(2, 5))
    with pytest.raises(ExportError, match="meta device"):
        export(nn.Linear(5, 2, device="meta"), tmp_path / "m.onnx", inputs=torch.randn(2, 5))
