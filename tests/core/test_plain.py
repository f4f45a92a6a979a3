"""Hyper-parameters of any type go through a checkpoint by value, and nothing in the file is ever code."""

import enum
import io
from argparse import Namespace
from collections import Counter, OrderedDict, UserDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Optional

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import leyden.core as L
from leyden.core.errors import CheckpointError, LeydenWarning
from leyden.core.plain import plain_hyper_parameters, rebuild_for


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = {"nested": 1}


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Bits(enum.Flag):
    A = 1
    B = 2


class Text(str):
    def __str__(self):
        return "something else"


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    folder: Path = Path("runs")


@dataclass
class Config:
    name: str = "net"
    mode: Mode = Mode.FAST
    optimizer: Optimizer = field(default_factory=Optimizer)
    several: list[Optimizer] = field(default_factory=list)
    by_name: dict[str, Optimizer] = field(default_factory=dict)
    maybe: "Optimizer | None" = None
    computed: int = field(default=3, init=False)


@dataclass
class Other:
    name: str = "other"
    width: int = 3


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    left: Path
    right: int


def model_of(annotation):
    """Return a class of modules whose argument ``value`` has an annotation."""

    class Model(L.LightningModule):
        def __init__(self, value: annotation, lr=0.1):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.save_hyperparameters()

        def training_step(self, batch, batch_idx):
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Model


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, Mapping):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


config = Config(
    "deep", Mode.EXACT, Optimizer(0.2), [Optimizer(0.3)], {"a.b": Optimizer(0.4)}, Optimizer(folder=Path("/tmp"))
)
SURVIVE = [
    (None, None),
    (float, 0.5),
    (float, float("nan")),
    (int, 2**200),
    (int, 2**2000),
    (list[bytes], [b"", b"x"]),
    (dict, {b"": b""}),
    (complex, 1 + 2j),
    (bytes, b"\x00"),
    (Path, Path("data/digits")),
    (object, Path("data/digits")),
    (Mode, Mode.FAST),
    (Mode, Mode.EXACT),
    (Mode | None, Mode.FAST),
    (Level, Level.HIGH),
    (Bits, Bits.A | Bits.B),
    (Optimizer, Optimizer(0.3, (0.5, 0.6), Path("x"))),
    (Config, config),
    (Optional[Config], config),  # noqa: UP045 - the older spelling must work too
    (Other | Config, config),
    (Config | Other, Other(width=7)),
    (Point, Point(1, 2)),
    (set[Point], {Point(1, 2), Point(3, 4)}),
    (list[Config], [config, Config()]),
    (tuple[Mode, Path], (Mode.FAST, Path("x"))),
    (tuple[Mode, ...], (Mode.FAST, Mode.EXACT)),
    (dict[Mode, float], {Mode.FAST: 0.1, Mode.EXACT: 0.2}),
    (dict[str, Config], {"a.b": config, "a": Config()}),
    (dict, {"a.b": Path("x"), "a": {"b": "x"}, 1: "int", "1": "text", (1, "x"): None}),
    (dict, {Path("x"): 1}),
    (OrderedDict, OrderedDict(b=Path("x"), a=2)),
    (Counter, Counter("hello")),
    (Pair, Pair(Path("x"), 2)),
    (tuple, (1, ("a", [2.0, (3,)]))),
    (set, {1, "a", (2, 3)}),
    (set, {Path("x"), Path("y")}),
    (frozenset, frozenset({1, 2})),
    (timedelta, timedelta(days=3, microseconds=5)),
    (Namespace, Namespace(a=1, b=Namespace(path=Path("x")))),
    (torch.dtype, torch.bfloat16),
    (torch.device, torch.device("cpu")),
    (torch.Size, torch.Size([2, 3])),
    (torch.Tensor, torch.arange(3)),
    (np.ndarray, np.arange(6.0).reshape(2, 3)[:, ::-1]),
    (list, [[Path("x")], [{"deep": {"deeper": Path("y")}}]]),
]


@pytest.mark.parametrize(
    ("annotation", "value"), SURVIVE, ids=[f"{i}-{type(v).__name__}" for i, (_, v) in enumerate(SURVIVE)]
)
def test_a_value_survives_a_checkpoint_with_its_type(saved, annotation, value):
    model = model_of(annotation)
    path = saved(model(value))
    torch.load(path, weights_only=True)
    loaded = model.load_from_checkpoint(path)
    assert same(loaded.hparams.value, value)
    assert loaded.hparams.lr == 0.1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Text("kept"), "kept"),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        ({np.int64(1): 2}, {1: 2}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_value_with_a_plain_twin_becomes_it(saved, value, plain):
    model = model_of(object)
    assert same(model.load_from_checkpoint(saved(model(value))).hparams.value, plain)


def test_a_parameter_is_stored_as_its_numbers(saved):
    model = model_of(object)
    loaded = model.load_from_checkpoint(saved(model(torch.nn.Parameter(torch.ones(2)))))
    assert same(loaded.hparams.value, torch.ones(2))


@dataclass
class Broken:
    a: int = 1

    def __getattribute__(self, name):
        if name == "a":
            raise RuntimeError("no a today")
        return super().__getattribute__(name)


class Lazy(Mapping):
    def __getitem__(self, key):
        raise OSError("the disk is away")

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


class Loud:
    def __repr__(self):
        raise RuntimeError("no repr")


def bomb(levels=60):
    value = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def deep(levels=100_000):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def looped():
    value = {"a": []}
    value["a"] += [value, value]
    return value


def looped_namespace():
    value = Namespace(a=1)
    value.me = value
    return value


OMITTED = {
    "huge number": lambda: 2**3000,
    "function": lambda: lambda x: x,
    "class": lambda: Mode,
    "object": object,
    "bad repr": Loud,
    "generator": lambda: (i for i in range(3)),
    "file": lambda: io.StringIO("x"),
    "object array": lambda: np.array([object()]),
    "text array": lambda: np.array(["a"]),
    "date": lambda: np.datetime64("2020-01-01"),
    "meta tensor": lambda: torch.zeros(2, device="meta"),
    "in a list": lambda: [1, {"a": (abs,)}],
    "in a dataclass": lambda: Optimizer(folder=abs),
    "dataclass that raises": Broken,
    "mapping that raises": Lazy,
    "key": lambda: {object(): 1},
    "dataclass as key": lambda: {Point(1, 2): 3},
    "keys that fall together": lambda: {Path("a"): 1, "a": 2},
    "contains itself": looped,
    "namespace in itself": looped_namespace,
    "very deep": deep,
    "exponential": bomb,
}


@pytest.mark.parametrize("kind", OMITTED)
def test_a_value_without_a_plain_form_is_named_kept_and_asked_for(saved, kind):
    model, value = model_of(object), OMITTED[kind]()
    with pytest.warns(LeydenWarning, match=r"LY-H002.*'value' removed from hparams.*value=\.\.\.") as shown:
        module = model(value)
    assert len(shown) == 1
    assert module.hparams.value is value
    path = saved(module)
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match=r"hyper-parameter 'value'.*value=\.\.\."):
        model.load_from_checkpoint(path)
    assert model.load_from_checkpoint(path, value=1).hparams == {"value": 1, "lr": 0.1}


def test_a_module_is_named_with_the_advice_to_ignore_it(saved):
    class Model(model_of(object)):
        def __init__(self, net, lr=0.1):
            L.LightningModule.__init__(self)
            self.weight, self.net = torch.nn.Parameter(torch.ones(1)), net
            self.save_hyperparameters()

    net = torch.nn.Linear(2, 2)
    with pytest.warns(LeydenWarning, match=r"LY-H001.*'net' is an instance of `nn.Module`.*ignore=\['net'\]"):
        model = Model(net)
    assert model.hparams.net is net
    assert model.hparams_initial.net is net, "a whole model is not copied"
    path = saved(model)
    assert set(torch.load(path, weights_only=True)["hyper_parameters"]) == {"lr"}
    with pytest.warns(LeydenWarning, match="LY-H001"):
        loaded = Model.load_from_checkpoint(path, net=torch.nn.Linear(2, 2))
    assert torch.equal(loaded.net.weight, net.weight)


def test_going_on_needs_no_omitted_value(quiet, saved, numbers):
    model = model_of(object)
    with pytest.warns(LeydenWarning, match="LY-H002"):
        first, other = model(abs), model(max)
    path = saved(first)
    trainer = quiet()
    trainer.fit(other, numbers(), ckpt_path=path)
    assert trainer.current_epoch == 1
    assert other.hparams.value is max


@pytest.mark.parametrize("value", [Mode.FAST, Optimizer(0.3)], ids=["enum", "dataclass"])
def test_without_an_annotation_the_plain_value_comes_back_and_is_announced(saved, value):
    class Model(model_of(object)):
        def __init__(self, value, lr=0.1):
            L.LightningModule.__init__(self)
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.save_hyperparameters()

    path = saved(Model(value))
    with pytest.warns(LeydenWarning, match=r"LY-H003.*no annotation of .*Model.__init__ says which"):
        loaded = Model.load_from_checkpoint(path)
    plain = "fast" if value is Mode.FAST else {"lr": 0.3, "betas": (0.9, 0.99), "folder": Path("runs")}
    assert loaded.hparams.value == plain


def test_the_annotations_of_a_base_class_count(saved):
    class Base(model_of(Mode)):
        pass

    class Sub(Base):
        def __init__(self, width: int = 2, **kwargs):
            super().__init__(**kwargs)

    loaded = Sub.load_from_checkpoint(saved(Sub(3, value=Mode.EXACT)))
    assert dict(loaded.hparams) == {"width": 3, "value": Mode.EXACT, "lr": 0.1}


def test_an_annotation_that_only_type_checkers_understand_spoils_no_other(saved):
    class Model(model_of(object)):
        def __init__(self, value: Mode, lr: "OnlyForTypeCheckers" = 0.1):  # noqa: F821
            L.LightningModule.__init__(self)
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.save_hyperparameters()

    assert Model.load_from_checkpoint(saved(Model(Mode.FAST))).hparams.value is Mode.FAST


def test_a_dataclass_that_no_longer_fits_is_named(saved):
    @dataclass
    class Before:
        lr: float = 0.1
        gone: int = 1

    path = saved(model_of(Before)(Before()))

    @dataclass
    class After:
        lr: float = 0.1

    with pytest.raises(CheckpointError, match=r"hyper-parameter value can not be made a .*After again.*'gone'"):
        model_of(After).load_from_checkpoint(path)


def test_the_table_of_types_can_name_no_code():
    class Model:
        def __init__(self, value): ...

    for kind in ("os.system", "builtins.eval", "module", ""):
        assert rebuild_for(Model, {"value": "ls"}, {"value": kind}) == {"value": "ls"}


def test_a_name_that_is_no_text_is_left_out(saved):
    class Model(model_of(object)):
        def __init__(self, config=None):
            L.LightningModule.__init__(self)
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.save_hyperparameters(config if config is not None else {})

    with pytest.warns(LeydenWarning, match="'1' removed from hparams.*name is no text"):
        path = saved(Model({1: 2, "a": 3}))
    assert torch.load(path, weights_only=True)["hyper_parameters"] == {"a": 3}


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
typed = leaves | st.timedeltas(timedelta(-1000), timedelta(1000)) | st.text("ab./", min_size=1).map(Path)
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    typed,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.dictionaries(st.text("ab", min_size=1), inner).map(lambda d: Namespace(**d))
        | st.sets(typed)
        | st.frozensets(typed)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), values, max_size=3))
def test_anything_made_of_plain_parts_goes_through_a_file_unchanged(hparams):
    class Model:
        def __init__(self, **kwargs): ...

    plain, types, omitted = plain_hyper_parameters(hparams)
    assert not omitted
    buffer = io.BytesIO()
    torch.save((plain, types), buffer)
    buffer.seek(0)
    back = rebuild_for(Model, *torch.load(buffer, weights_only=True))
    assert back == hparams
    assert list(back) == list(hparams)
