"""What goes in: the arguments of `export`, and the contract of a loaded file."""

import inspect as python_inspect

import numpy as np
import pytest
import torch
from torch import nn

from leyden.export import ExportError, ExportValueError, Report, export, inspect, list_formats, load, verify


class Scaled(nn.Module):
    def forward(self, x, scale: float = 2.0, *, mask=None):
        return x * scale


class Added(nn.Module):
    def forward(self, left, right):
        return left + right


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    path = tmp_path_factory.mktemp("scaled") / "scaled.onnx"
    export(Scaled(), path, inputs={"x": torch.randn(2, 3), "scale": 4.0})
    return load(path)


def test_a_loaded_file_has_the_signature_of_forward(scaled):
    assert str(scaled.signature) == "(x, scale=2.0, *, mask=None)"
    assert python_inspect.signature(scaled) == scaled.signature
    assert torch.equal(scaled(scale=4.0, x=torch.ones(1, 3)), torch.full((1, 3), 4.0))
    assert "scaled.onnx" in repr(scaled)


def test_constants_of_the_export_are_part_of_the_contract(scaled):
    with pytest.raises(ExportValueError, match=r"argument scale: the file was made with 4.0, got 2.0"):
        scaled(torch.ones(1, 3))
    with pytest.raises(ExportValueError, match=r"argument mask: expected None, got a tensor"):
        scaled(torch.ones(1, 3), 4.0, mask=torch.ones(1, 3))


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((torch.ones(1, 3).double(), 4.0), "argument 'x' must be float32, got torch.float64"),
        ((torch.ones(3), 4.0), "argument 'x' must have 2 dimensions"),
        ((torch.ones(0, 3), 4.0), r"size x\[0\] is 0, outside of what the module answers: batch >= 1"),
        ((), "missing a required argument: 'x'"),
        ((torch.ones(1, 3), 4.0, 5), "too many positional arguments"),
        (([torch.ones(1, 3)], 4.0), "argument x: expected a tensor, got a list"),
    ],
)
def test_a_call_outside_of_the_contract_is_refused_by_name(scaled, args, text):
    with pytest.raises(ExportValueError, match=text):
        scaled(*args)


def test_sizes_that_belong_together_must_be_equal(tmp_path):
    added = load(export(Added(), tmp_path / "added.onnx", inputs=(torch.randn(1, 3), torch.randn(1, 3))).path)
    assert added(torch.ones(4, 3), torch.ones(4, 3)).shape == (4, 3)
    with pytest.raises(ExportValueError, match=r"sizes left\[0\] and right\[0\] must be equal \(batch\), got 4 and 5"):
        added(torch.ones(4, 3), torch.ones(5, 3))


def test_arrays_go_in_as_well(scaled):
    assert scaled(np.ones((2, 3), np.float32), 4.0).tolist() == [[4.0] * 3] * 2


def test_a_position_beyond_the_table_is_refused(tmp_path):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(12, 4)

        def forward(self, x):
            return x + self.table(torch.arange(x.shape[1]))

    exported = load(export(Positions(), tmp_path / "p.onnx", inputs=torch.randn(2, 10, 4)).path)
    assert exported(torch.zeros(1, 12, 4)).shape == (1, 12, 4)
    with pytest.raises(ExportValueError, match=r"x_dim1 1\.\.12"):
        exported(torch.zeros(1, 13, 4))


def test_inspect_tells_what_is_in_a_file(classifier_file):
    info = inspect(classifier_file)
    assert [str(spec) for spec in (*info.inputs, *info.outputs)] == [
        "input: float32[batch, 4]",
        "output: float32[batch, 3]",
    ]
    assert info.metadata["labels"] == ["cat", "dog", "eel"]
    assert info.report == load(classifier_file).report
    assert info.report.path == classifier_file
    assert info.report.sizes == {"classifier.onnx": classifier_file.stat().st_size}
    assert {"torch", "onnx", "onnxruntime", "onnxscript", "python", "leyden-export"} == set(info.report.versions)
    assert "labels = ['cat', 'dog', 'eel']" in str(info)


def test_metadata_comes_back_and_other_tools_see_it(classifier_file):
    import onnxruntime

    expected = {"labels": ["cat", "dog", "eel"], "licence": "CC0", "mean": [0.5, 0.25], "nested": {"a": None}}
    assert load(classifier_file).metadata == expected
    seen = onnxruntime.InferenceSession(classifier_file.read_bytes()).get_modelmeta().custom_metadata_map
    assert seen["licence"] == "CC0"
    assert seen["labels"] == '["cat", "dog", "eel"]'


@pytest.mark.parametrize("metadata", [{"a": (1, 2)}, {1: "a"}, {"a": object()}, {"a": float("nan")}, {"a": {1: 2}}])
def test_metadata_that_would_not_come_back_is_refused_at_once(metadata, tmp_path):
    with pytest.raises(ExportValueError, match="metadata"):
        export(nn.ReLU(), tmp_path / "m.onnx", inputs=torch.randn(2, 3), metadata=metadata)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (None, "has no example_input_array: pass inputs"),
        ((), "missing a required argument"),
        ({"y": torch.ones(2)}, "fails on inputs"),
        ((torch.ones(2, 3), object()), r"inputs\['scale'\] is a object; only tensors"),
        ((torch.ones(0, 3),), "input 'x' is empty"),
        ((2.0,), "inputs hold no tensor"),
    ],
)
def test_wrong_inputs_are_named(inputs, text, tmp_path):
    with pytest.raises(ExportValueError, match=text):
        export(Scaled(), tmp_path / "m.onnx", inputs=inputs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dynamic", "text"),
    [
        ("batch", "dynamic must be 'auto', None or a mapping"),
        ({"y": {0: "batch"}}, "dynamic names the input 'y'; the inputs are 'input'"),
        ({"input": {2: "n"}}, r"dynamic\['input'\] has the dimension 2; 'input' has 2"),
        ({"input": {0: "n", 1: "n"}}, r"one name, 'n', but their sizes differ"),
        ({"input": {1: "n"}}, r"forward refuses every other size"),
    ],
)
def test_wrong_free_sizes_are_named(dynamic, text, classifier, tmp_path):
    with pytest.raises(ExportValueError, match=text):
        export(classifier, tmp_path / "m.onnx", inputs=torch.randn(2, 4), dynamic=dynamic)


def test_the_ending_chooses_the_format_and_a_wrong_one_lists_them(classifier, tmp_path):
    assert list_formats()["onnx"] == (".onnx",)
    with pytest.raises(ExportValueError, match=r"the ending of 'm.bin' .*onnx \(.onnx\)"):
        export(classifier, tmp_path / "m.bin", inputs=torch.randn(2, 4))
    with pytest.raises(ExportValueError, match=r"unknown format 'tape'; installed are .*'onnx'"):
        export(classifier, tmp_path / "m.onnx", format="tape", inputs=torch.randn(2, 4))
    with pytest.raises(ExportValueError, match=r"format 'onnx' must end in .onnx"):
        export(classifier, tmp_path / "m.bin", format="onnx", inputs=torch.randn(2, 4))
    with pytest.raises(ExportValueError, match=r"there is no file"):
        load(tmp_path / "absent.onnx")


def test_only_a_module_can_be_exported(tmp_path):
    with pytest.raises(ExportValueError, match=r"module must be a torch.nn.Module, got a function"):
        export(lambda x: x, tmp_path / "m.onnx", inputs=torch.ones(2))


def test_verifying_needs_inputs_that_fit_the_file(classifier, classifier_file):
    with pytest.raises(ExportValueError, match=r"size input\[1\] must be 4, got 5"):
        verify(classifier_file, classifier, torch.randn(2, 5))


def test_errors_are_one_family():
    assert issubclass(ExportValueError, ExportError)
    assert not issubclass(ExportError, ValueError)
    assert Report.__dataclass_params__.frozen
