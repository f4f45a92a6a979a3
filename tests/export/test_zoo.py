"""Modules that a file can be right for: it is right at sizes and values that no export has seen."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from leyden.export import export, inspect, load, verify


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.features(image).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.never_called = nn.Linear(64, 64)

    def forward(self, x, state=None):
        return self.lstm(x, state)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens):
        return self.out(self.embedding(tokens))


Pair = namedtuple("Pair", "first second")


class Nested(nn.Module):
    def forward(self, batch, *, scale=2.0, extra=None):
        total = batch["left"] + batch["right"][0] * scale
        return {"sum": total, "kind": "nested", "pair": Pair(total.mean(1), [batch["left"]]), 7: (total * 2,)}


class Several(nn.Module):
    """An input given back, a weight given back, one tensor twice: what a graph has trouble to say."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        y = x + self.weight
        return x, self.weight, y, y, {"x": x * 2}


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(16, 4))

    def forward(self, x):
        return x + self.table[: x.shape[1]]


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, mask):
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class Item(nn.Module):
    def forward(self, x):
        return x * x.max().item()


class Argmax(nn.Module):
    def forward(self, x):
        return x.argmax(-1), x > 0


class InPlace(nn.Module):
    def forward(self, x):
        x += 1
        return x * 2


class Sum(nn.Module):
    def forward(self, *terms, **factors):
        return torch.stack(terms).sum(0) * factors.get("by", 1.0)


class Condition(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: -x, (x,))


R = torch.randn
ENCODER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
# For each: the module, the example, and other arguments that the file must answer.
ZOO = {
    "mlp": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), R(2, 4), (R(9, 4),)),
    "convolution": (ConvNet(), R(2, 1, 12, 12), (R(5, 1, 17, 9),)),
    "lstm": (Recurrent(), R(2, 5, 4), (R(3, 11, 4),)),
    "lstm-state": (Recurrent(), (R(2, 5, 4), (R(1, 2, 3), R(1, 2, 3))), (R(4, 1, 4), (R(1, 4, 3), R(1, 4, 3)))),
    "tied": (Tied(), torch.randint(0, 11, (2, 5)), (torch.randint(0, 11, (1, 8)),)),
    "nested": (Nested(), {"batch": {"left": R(2, 3), "right": [R(2, 3)]}}, ({"left": R(6, 4), "right": [R(6, 4)]},)),
    "several": (Several(), R(2, 3), (R(5, 3),)),
    "positions": (Positions(), R(2, 10, 4), (R(1, 16, 4),)),
    "masked": (Masked(), (R(2, 5, 8), torch.zeros(5, 5)), (R(3, 9, 8), R(9, 9))),
    "encoder": (nn.TransformerEncoder(ENCODER, 1), R(1, 5, 8), (R(4, 13, 8),)),
    "item": (Item(), R(2, 3), (R(4, 3),)),
    "argmax": (Argmax(), R(2, 5), (R(7, 5),)),
    "in-place": (InPlace(), R(2, 3), (R(4, 3),)),
    "variadic": (Sum(), (R(2, 3), R(2, 3)), (R(4, 3), R(4, 3))),
    "condition": (Condition(), R(2, 3), (-R(4, 3).abs(),)),
    "half": (nn.Linear(8, 4).half(), R(2, 8).half(), (R(5, 8).half(),)),
    "double": (nn.Linear(8, 4).double(), R(2, 8).double(), (R(5, 8).double(),)),
}


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [leaf for item in items if not isinstance(item, str) for leaf in leaves(item)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("name", ZOO)
def test_the_file_answers_what_the_module_answers(name, folder):
    module, example, others = ZOO[name]
    report = export(module, folder / f"{name}.onnx", inputs=example)
    assert report.verified
    assert report.max_error <= report.tolerance
    exported = load(report.path)
    copies = [[t.clone() for t in leaves(others)] for _ in range(2)]
    module.eval()
    expected = leaves(module(*rebuilt(others, copies[0])))
    actual = leaves(exported(*rebuilt(others, copies[1])))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4 if a.dtype != torch.half else 1e-2)


def rebuilt(value, tensors):
    if isinstance(value, torch.Tensor):
        return tensors.pop(0)
    if isinstance(value, dict):
        return {key: rebuilt(item, tensors) for key, item in value.items()}
    return type(value)(rebuilt(item, tensors) for item in value)


def test_the_structure_and_the_constants_of_the_results_come_back(folder):
    module, example, others = ZOO["nested"]
    exported = load(export(module, folder / "structure.onnx", inputs=example).path)
    answer = exported(*others)
    assert list(answer) == ["sum", "kind", "pair", 7]
    assert answer["kind"] == "nested"
    assert answer["pair"]._fields == ("first", "second")
    assert isinstance(answer["pair"].second, list)
    assert isinstance(answer[7], tuple)
    torch.testing.assert_close(answer["pair"].first, answer["sum"].mean(1))


def test_names_in_the_file_are_those_of_arguments_and_keys(folder):
    import onnx

    module, example, _ = ZOO["nested"]
    graph = onnx.load(export(module, folder / "names.onnx", inputs=example).path).graph
    assert [value.name for value in graph.input] == ["batch_left", "batch_right_0"]
    assert [value.name for value in graph.output] == ["sum", "pair_first", "pair_second_0", "output_7_0"]
    sizes = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "batch_left_dim1"]


def test_an_output_that_bears_the_name_of_an_input_gets_another(folder):
    class Same(nn.Module):
        def forward(self, x):
            return {"x": x * 2}

    exported = load(export(Same(), folder / "same.onnx", inputs=torch.ones(2, 3)).path)
    assert torch.equal(exported(torch.ones(1, 3))["x"], torch.full((1, 3), 2.0))


def test_a_size_that_follows_from_values_is_declared_as_free(folder):
    class Positive(nn.Module):
        def forward(self, x):
            return x[x > 0]

    report = export(Positive(), folder / "positive.onnx", inputs=torch.randn(2, 3), dynamic=None)
    assert inspect(report.path).outputs[0].shape == ("output_dim0",)
    assert load(report.path)(torch.tensor([[1.0, -1.0, 2.0], [-1.0, -1.0, -1.0]])).tolist() == [1.0, 2.0]


def test_only_what_forward_reaches_is_in_the_file(folder):
    module, example, _ = ZOO["lstm"]
    path = export(module, folder / "reach.onnx", inputs=example).path
    assert path.stat().st_size < 64 * 64 * 4
    assert b"never_called" not in path.read_bytes()


def test_a_file_names_weights_like_the_state_dict_and_nothing_of_the_machine(folder):
    import onnx

    module, example, _ = ZOO["mlp"]
    path = export(module, folder / "clean.onnx", inputs=example).path
    graph = onnx.load(path).graph
    assert {weight.name for weight in graph.initializer} == set(module.state_dict())
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    assert __file__.encode() not in path.read_bytes()
    assert str(folder).encode() not in path.read_bytes()


def test_the_same_module_gives_the_same_bytes(folder):
    module, example, _ = ZOO["mlp"]
    first = export(module, folder / "bytes.onnx", inputs=example).path.read_bytes()
    assert export(module, folder / "bytes.onnx", inputs=example).path.read_bytes() == first


def test_the_report_tells_the_free_sizes_and_their_limits(folder):
    module, example, _ = ZOO["positions"]
    report = export(module, folder / "limits.onnx", inputs=example)
    assert [str(bound) for bound in report.bounds] == ["batch >= 1", "x_dim1 1..16"]
    assert {"batch=1", "batch=2", "batch=5", "x_dim1=16", "negated", "zero", "large", "constant"} <= {
        case.name for case in report.cases
    }
    assert "x_dim1 1..16" in str(report)


def test_sizes_can_be_named_and_then_all_others_are_fixed(folder):
    module, example, _ = ZOO["convolution"]
    report = export(module, folder / "named.onnx", inputs=example, dynamic={"image": {0: "n"}})
    assert [bound.name for bound in report.bounds] == ["n"]
    with pytest.raises(ValueError, match=r"size image\[2\] must be 12, got 13"):
        load(report.path)(torch.randn(2, 1, 13, 12))
    static = export(module, folder / "static.onnx", inputs=example, dynamic=None)
    with pytest.raises(ValueError, match=r"size image\[0\] must be 2, got 3"):
        load(static.path)(torch.randn(3, 1, 12, 12))


def test_outputs_that_never_change_are_flagged(folder):
    module = nn.Linear(4, 2)
    nn.init.zeros_(module.weight)
    report = export(module, folder / "constant.onnx", inputs=torch.randn(2, 4))
    assert report.constant_outputs == ("output",)
    assert "proves nothing" in str(report)


def test_random_outputs_are_drawn_anew_and_only_their_shape_is_compared(folder):
    class Sampler(nn.Module):
        def forward(self, x):
            return {"sample": x + torch.randn_like(x), "mean": x * 2}

    report = export(Sampler(), folder / "random.onnx", inputs=torch.randn(2, 3))
    assert report.random_outputs == ("sample",)
    exported, x = load(report.path), torch.ones(4, 3)
    assert not torch.equal(exported(x)["sample"], exported(x)["sample"])
    assert torch.equal(exported(x)["mean"], x * 2)


def test_hazards_that_pass_are_reported_with_their_line(folder):
    module, example, _ = ZOO["item"]
    report = export(module, folder / "item.onnx", inputs=example)
    line = Item.forward.__code__.co_firstlineno + 1
    assert any(h.kind == "value" and h.where == f"{__file__}:{line}" for h in report.hazards)


def test_a_module_that_is_ill_conditioned_is_measured_by_its_own_distance_from_float64(folder):
    class Steep(nn.Module):
        def forward(self, x):
            return torch.sin(x * 1000.0) + (x @ x.transpose(0, 1) * 100.0).sin().sum()

    report = export(Steep(), folder / "steep.onnx", inputs=torch.randn(2, 300), dynamic=None)
    assert report.tolerance > 1e-5
    assert report.max_error <= report.tolerance


def test_a_file_is_verified_later_on_a_batch_of_ones_own(folder):
    module, example, _ = ZOO["mlp"]
    path = export(module, folder / "later.onnx", inputs=example).path
    report = verify(path, module, torch.randn(64, 4))
    assert report.verified
    assert report.cases[0].shapes == {"input": (64, 4)}


def test_the_example_of_the_module_is_taken_when_no_inputs_are_given(folder):
    class WithExample(nn.Module):
        example_input_array = torch.randn(2, 3)

        def forward(self, x):
            return x.tanh()

    assert export(WithExample(), folder / "example.onnx").cases[0].shapes == {"x": (2, 3)}


def test_an_export_can_go_unverified_and_says_so(folder):
    report = export(nn.ReLU(), folder / "unverified.onnx", inputs=torch.randn(2, 3), verify=False)
    assert not report.verified
    assert "not verified" in str(report)
    assert load(report.path)(torch.tensor([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]
