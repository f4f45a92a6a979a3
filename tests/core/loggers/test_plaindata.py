"""Hyper-parameters of every kind become plain data, and nothing of them runs."""

import argparse
import dataclasses
import enum
import functools
import json
from collections import OrderedDict, deque, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.loggers import CSVLogger, flatten, plain


class Color(enum.Enum):
    RED = 1


class Choice(str, enum.Enum):  # noqa: UP042 - as users write it
    ADAM = "adam"


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    folder: Path = Path("data")


class Fails:
    def __repr__(self):
        raise RuntimeError("no")


class Silent:
    pass


class Runs:
    """Runs code when it is rebuilt by pickle, and may not be called, compared or iterated."""

    def __reduce__(self):
        return (print, ("never",))

    def __call__(self):
        raise AssertionError("was called")

    def __repr__(self):
        return "Runs()"


class Liar(dict):
    def items(self):
        raise KeyError("gone")


def function():
    raise AssertionError("was called")


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("text", "text"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (np.float64("nan"), "nan"),
        (np.int32(4), 4),
        (np.bool_(True), True),
        (torch.tensor(0.5), 0.5),
        (Path("a") / "b", "a/b"),
        (Color.RED, "RED"),
        (Choice.ADAM, "adam"),
        (torch.float16, "float16"),
        (torch.device("cpu"), "cpu"),
        (torch.Size([1, 2]), [1, 2]),
        (Config(), {"lr": 0.1, "folder": "data"}),
        (argparse.Namespace(lr=0.1), {"lr": 0.1}),
        (OrderedDict(a=1), {"a": 1}),
        (Pair(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (torch.tensor([1, 2]), {"dtype": "int64", "shape": [2], "values": [1, 2]}),
        (np.zeros((20, 2), dtype=np.float32), {"dtype": "float32", "shape": [20, 2]}),
        (torch.empty(2, device="meta"), {"dtype": "float32", "shape": [2]}),
        (torch.nn.functional.relu, "torch.nn.functional.relu"),
        (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (len, "builtins.len"),
        (torch.relu, "torch.relu"),
        ("text".upper, "str.upper"),
        (
            functools.partial(max, 1, key=len),
            {"partial": "builtins.max", "args": [1], "kwargs": {"key": "builtins.len"}},
        ),
        (torch.nn.Linear(1, 1), "<torch.nn.modules.linear.Linear>"),
        ({(1, 2): "a", None: "b", Path("c"): "d"}, {"[1, 2]": "a", None: "b", "c": "d"}),
        (Runs(), "Runs()"),
        (b"bytes", "b'bytes'"),
    ],
)
def test_plain(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_functions_are_named_and_not_called():
    assert plain(function).endswith(".function")
    assert plain(lambda: function()).endswith("<lambda>")
    assert plain(Config().__eq__).endswith("Config.__eq__")


def test_objects_without_a_useful_repr_are_named_by_their_type():
    assert plain(Fails()).endswith("Fails>")
    assert plain(Silent()).endswith("Silent>")
    assert plain(Liar(a=1)).endswith("Liar>")
    assert len(plain("x" * 1000)) == 1000
    assert "1000" in plain(bytearray(1000))[-20:] or len(plain(bytearray(1000))) < 300


def test_an_object_that_holds_itself_is_marked():
    config = {"lr": 0.1, "twice": (shared := [1])}
    config["again"] = shared
    config["self"] = config
    config["list"] = [config]
    assert plain(config) == {"lr": 0.1, "twice": [1], "again": [1], "self": "<cycle>", "list": ["<cycle>"]}


def test_bottomless_nesting_is_cut():
    nested = []
    for _ in range(5000):
        nested = [nested]
    assert "<too deep>" in json.dumps(plain(nested))


# By name, because hypothesis shows the elements that it samples from.
ODD = {
    "function": function,
    "fails": Fails(),
    "silent": Silent(),
    "runs": Runs(),
    "enum": Color.RED,
    "path": Path("p"),
    "dtype": torch.float32,
    "tensor": torch.ones(2),
    "dataclass": Config(),
}
odd = st.sampled_from(sorted(ODD)).map(lambda name: ODD[name])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5)
keys = st.text() | st.integers() | st.tuples(st.text())
anything = st.recursive(
    scalars | odd, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner), max_leaves=20
)


@given(anything)
def test_plain_data_goes_through_yaml_and_json(value):
    data = plain(value)
    assert yaml.safe_load(yaml.safe_dump(data)) == data
    json.dumps(data, allow_nan=False)


@given(anything)
def test_flat_data_is_scalars_by_name(value):
    for name, scalar in flatten(value).items():
        assert isinstance(name, str)
        assert scalar is None or type(scalar) in (bool, int, float, str)


def test_flatten_joins_names():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [1, "x"], "f": {}}) == {
        "a/b": 1,
        "a/c/d": 2,
        "e": '[1, "x"]',
        "f": "{}",
    }
    assert flatten({"a": {"b": 1}}, separator=".") == {"a.b": 1}


def test_names_that_meet_are_kept_apart():
    with pytest.warns(UserWarning, match=r"LY-L002.*'a/b'"):
        assert flatten({"a/b": 1, "a": {"b": 2}}) == {"a/b": 1, "a/b_2": 2}


def test_odd_hyperparameters_reach_the_file_as_plain_yaml(tmp_path, capsys):
    config = {
        "fails": Fails(),
        "runs": Runs(),
        "f": function,
        "nan": float("nan"),
        "odd": "\udc80\x00",
        "weights": torch.ones(2),
    }
    config["self"] = config
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(config)
    text = (Path(logger.log_dir) / "hparams.yaml").read_text()
    found = yaml.safe_load(text)
    assert found["runs"] == "Runs()"
    assert found["self"] == "<cycle>"
    assert found["nan"] == "nan"
    assert found["odd"] == "\udc80\x00"
    assert "!!" not in text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("params", [{"lr": 0.1}, argparse.Namespace(lr=0.1), Config(), None])
def test_every_kind_of_params_is_taken(tmp_path, params):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(params)
    assert logger.hparams.get("lr", 0.1) == 0.1
