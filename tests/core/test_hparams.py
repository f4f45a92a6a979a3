"""save_hyperparameters: what is collected, where it is read, and what a checkpoint makes of it."""

import copy
import pickle
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import leyden.core as L
from leyden.core.errors import MisconfigurationValueError


class Plain(L.LightningModule):
    def __init__(self, width, lr=0.1, *, deep=False):
        super().__init__()
        self.save_hyperparameters()


def test_all_arguments_are_collected_with_their_defaults():
    model = Plain(3, deep=True)
    assert dict(model.hparams) == {"width": 3, "lr": 0.1, "deep": True}
    assert (model.hparams.width, model.hparams["lr"]) == (3, 0.1)


def test_names_choose():
    class Model(L.LightningModule):
        def __init__(self, width, lr=0.1, depth=2):
            super().__init__()
            self.save_hyperparameters("width", "depth")

    assert dict(Model(3).hparams) == {"width": 3, "depth": 2}


@pytest.mark.parametrize("ignore", ["lr", ["lr"], ("lr",), {"lr", "no such argument"}])
def test_ignored_names_are_left_out(ignore):
    class Model(L.LightningModule):
        def __init__(self, width, lr=0.1):
            super().__init__()
            self.save_hyperparameters(ignore=ignore)

    assert dict(Model(3).hparams) == {"width": 3}


def test_ignored_names_are_left_out_of_an_object_too():
    class Model(L.LightningModule):
        def __init__(self, config):
            super().__init__()
            self.save_hyperparameters(config, ignore="lr")

    assert dict(Model({"lr": 0.1, "width": 2}).hparams) == {"width": 2}


@dataclass
class Config:
    width: int = 3
    folder: Path = Path("x")


@pytest.mark.parametrize(
    "config",
    [{"width": 3, "folder": Path("x")}, Namespace(width=3, folder=Path("x")), Config()],
    ids=["dict", "namespace", "dataclass"],
)
def test_one_object_that_holds_them_all(config):
    class Model(L.LightningModule):
        def __init__(self, conf, other=1):
            super().__init__()
            self.save_hyperparameters(conf)

    model = Model(config)
    assert dict(model.hparams) == {"width": 3, "folder": Path("x")}
    model.hparams.width = 4
    assert (config["width"] if isinstance(config, dict) else config.width) == 3, "the object itself stays as it is"


def test_keyword_arguments_are_collected_and_positional_ones_without_a_name_are_not():
    class Model(L.LightningModule):
        def __init__(self, first, *rest, second=2, **others):
            super().__init__()
            self.save_hyperparameters()

    assert dict(Model(1, "a", "b", third=3).hparams) == {"first": 1, "second": 2, "third": 3}


class Base(L.LightningModule):
    def __init__(self, lr=0.1, width=1, **kwargs):
        super().__init__()
        self.save_hyperparameters()


class Sub(Base):
    def __init__(self, depth, width=5):
        super().__init__(lr=0.5, width=width * 2)
        self.after = dict(self.hparams)


class SubSub(Sub):
    def __init__(self, seed=7, **kwargs):
        super().__init__(depth=seed + 1, **kwargs)


class Both(Base):
    def __init__(self, depth, lr=0.2):
        super().__init__(lr=lr)
        self.extra = 1
        self.save_hyperparameters()


def test_arguments_of_subclasses_are_collected_and_win():
    assert dict(Sub(4).hparams) == {"lr": 0.5, "width": 5, "depth": 4}
    assert dict(SubSub(width=6).hparams) == {"lr": 0.5, "width": 6, "depth": 8, "seed": 7}


def test_two_calls_add_up():
    assert dict(Both(4).hparams) == {"lr": 0.2, "width": 1, "depth": 4}

    class Model(L.LightningModule):
        def __init__(self, a, b, c):
            super().__init__()
            self.save_hyperparameters("a")
            self.save_hyperparameters({"d": 4})
            self.save_hyperparameters("b")

    assert dict(Model(1, 2, 3).hparams) == {"a": 1, "d": 4, "b": 2}


class Inner(L.LightningModule):
    def __init__(self, width=2):
        super().__init__()
        self.save_hyperparameters()


class Outer(L.LightningModule):
    def __init__(self, lr=0.1, inner=None):
        super().__init__()
        self.inner = Inner()
        self.save_hyperparameters(ignore="inner")
        self.late = Inner(width=3)


def test_a_module_made_inside_another_sees_its_own_arguments_only():
    model = Outer(0.3)
    assert dict(model.hparams) == {"lr": 0.3}
    assert dict(model.inner.hparams) == {"width": 2}
    assert dict(model.late.hparams) == {"width": 3}


def test_a_module_made_as_an_argument_of_another_sees_its_own_arguments_only():
    class Wrapping(Base):
        def __init__(self, depth):
            super().__init__(lr=Inner(width=depth).hparams.width)

    assert dict(Wrapping(9).hparams) == {"lr": 9, "width": 1, "depth": 9}


def test_a_call_from_a_method_that_init_calls():
    class Model(L.LightningModule):
        def __init__(self, a, b=2):
            super().__init__()
            self.remember()

        def remember(self):
            self.save_hyperparameters()

    assert dict(Model(1).hparams) == {"a": 1, "b": 2}


def test_arguments_collected_elsewhere():
    class Model(L.LightningModule):
        def __init__(self, **kwargs):
            super().__init__()
            self.save_hyperparameters(given_hparams={"a": 1, "b": 2}, ignore="b")

    assert dict(Model().hparams) == {"a": 1}


def test_before_the_constructor_of_the_base_class():
    class Model(L.LightningModule):
        def __init__(self, a):
            self.save_hyperparameters()
            super().__init__()
            self.layer = torch.nn.Linear(self.hparams.a, 1)

    assert dict(Model(2).hparams) == {"a": 2}


def test_a_module_that_is_a_dataclass():
    @dataclass(eq=False)
    class Model(L.LightningModule):
        width: int = 2
        lr: float = 0.1

        def __post_init__(self):
            super().__init__()
            self.save_hyperparameters()

    assert dict(Model(width=5).hparams) == {"width": 5, "lr": 0.1}


def test_modules_that_define_equality_are_told_apart_by_identity():
    class Equal(Base):
        def __init__(self, lr=0.1, inner=None):
            super().__init__(lr=lr)
            self.inner = None if inner else Equal(0.7, True)

        def __eq__(self, other):
            return True

        __hash__ = L.LightningModule.__hash__

    assert Equal(0.2).inner.hparams.lr == 0.7


def test_nothing_was_saved():
    model = L.LightningModule()
    assert model.hparams == {}
    assert model.hparams_initial == {}


# -- access ------------------------------------------------------------------------------------------------------------


def test_access_by_attribute_and_by_key_is_the_same():
    model = Plain(3)
    model.hparams.lr = 0.5
    model.hparams["new"] = 1
    assert (model.hparams["lr"], model.hparams.new) == (0.5, 1)
    del model.hparams.new
    assert "new" not in model.hparams


def test_a_missing_name_is_an_attribute_error_that_lists_the_names():
    with pytest.raises(AttributeError, match=r'Missing attribute "wdith"; there are: width, lr, deep'):
        Plain(3).hparams.wdith
    with pytest.raises(AttributeError, match="Missing attribute"):
        del Plain(3).hparams.wdith
    assert not hasattr(Plain(3).hparams, "wdith")


def test_they_print_as_a_table():
    assert repr(Plain(3).hparams) == '"width": 3\n"lr":    0.1\n"deep":  False'
    assert repr(L.LightningModule().hparams) == ""


def test_the_initial_values_stay_when_the_values_change():
    class Model(L.LightningModule):
        def __init__(self, layers, lr):
            super().__init__()
            self.save_hyperparameters()

    layers = [1, 2]
    model = Model(layers, 0.1)
    model.hparams.lr = 1.0
    layers.append(3)
    assert model.hparams_initial == {"layers": [1, 2], "lr": 0.1}
    model.hparams_initial["lr"] = 2.0
    assert model.hparams_initial.lr == 0.1


def test_a_value_that_can_not_be_copied_is_kept():
    class Model(L.LightningModule):
        def __init__(self, scale):
            super().__init__()
            self.save_hyperparameters()

    scale = torch.ones(1, requires_grad=True) * 2
    assert Model(scale).hparams_initial.scale is scale


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_they_travel_with_copies(way):
    model = way(Plain(3))
    assert dict(model.hparams) == {"width": 3, "lr": 0.1, "deep": False}
    assert model.hparams.lr == 0.1


# -- wrong input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [3, 0.1, True])
def test_primitives_are_refused(wrong):
    with pytest.raises(MisconfigurationValueError, match="not allowed as hyper-parameters"):
        L.LightningModule().save_hyperparameters(wrong)


@pytest.mark.parametrize("wrong", [object(), Config, torch.nn.Linear(1, 1), [1, 2], (1,)])
def test_an_object_without_names_is_refused(wrong):
    with pytest.raises(MisconfigurationValueError, match="dict, Namespace or dataclass"):
        L.LightningModule().save_hyperparameters(wrong)


@pytest.mark.parametrize("empty", [None, {}, ""])
def test_nothing_to_keep_keeps_nothing(empty):
    model = L.LightningModule()
    model.save_hyperparameters(empty)
    assert dict(model.hparams) == {}


def test_a_subclass_can_leave_out_what_its_base_kept():
    class Narrow(Plain):
        def __init__(self, width, extra=1):
            super().__init__(width)
            self.save_hyperparameters(ignore="lr")

    assert dict(Narrow(3).hparams) == {"width": 3, "deep": False, "extra": 1}


def test_names_and_objects_do_not_mix():
    with pytest.raises(MisconfigurationValueError, match=r"takes names of arguments, or one object; got \{'b': 1\}"):
        L.LightningModule().save_hyperparameters("a", {"b": 1})


def test_a_misspelt_name_is_told_with_the_nearest_one():
    class Model(L.LightningModule):
        def __init__(self, width, learning_rate=0.1):
            super().__init__()
            self.save_hyperparameters("width", "learnign_rate")

    with pytest.raises(MisconfigurationValueError, match=r"it has width, learning_rate.*mean 'learning_rate'"):
        Model(3)


# -- through a checkpoint ----------------------------------------------------------------------------------------------


class Net(L.LightningModule):
    """Base of the modules that go through a file here."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saved(Net):
    def __init__(self, width, lr=0.1, folder: Path = Path("a")):
        super().__init__()
        self.save_hyperparameters()


def test_the_stored_values_build_the_module_again_and_arguments_override_them(saved):
    model = Saved(3, folder=Path("b"))
    with torch.no_grad():
        model.weight += 5
    path = saved(model)
    loaded = Saved.load_from_checkpoint(path, lr=0.7)
    assert dict(loaded.hparams) == {"width": 3, "lr": 0.7, "folder": Path("b")}
    assert torch.equal(loaded.weight, model.weight)


def test_the_file_holds_the_values_as_they_are_when_it_is_written(saved):
    model = Saved(3)
    model.hparams.lr = 9.0
    assert Saved.load_from_checkpoint(saved(model)).hparams.lr == 9.0


def test_files_of_model_checkpoint_hold_them(quiet, numbers, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "files")
    quiet(enable_checkpointing=True, callbacks=[saver]).fit(Saved(3), numbers())
    assert Saved.load_from_checkpoint(saver.best_model_path).hparams.width == 3


def test_a_module_that_saved_none_is_built_from_arguments(saved, tiny):
    assert isinstance(tiny.load_from_checkpoint(saved(tiny())), tiny)


def test_stored_names_that_the_class_no_longer_takes_are_passed_over(saved):
    path = saved(Saved(3))

    class Later(Net):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()

    assert dict(Later.load_from_checkpoint(path).hparams) == {"width": 3}


class FromDict(Net):
    def __init__(self, conf, other=1):
        super().__init__()
        self.save_hyperparameters(conf)
        self.width = conf["width"]


class FromNamespace(Net):
    def __init__(self, conf, other=1):
        super().__init__()
        self.save_hyperparameters(conf)
        self.width = conf.width


class FromAnnotatedNamespace(Net):
    def __init__(self, conf: Namespace, other=1):
        super().__init__()
        self.save_hyperparameters(conf)
        self.width = vars(conf)["width"]


class FromDataclass(Net):
    def __init__(self, conf: Config | None = None, other=1):
        super().__init__()
        self.save_hyperparameters(conf)
        self.width = conf.width
        assert isinstance(conf, Config)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (FromDict, {"width": 3, "folder": Path("x")}),
        (FromNamespace, Namespace(width=3, folder=Path("x"))),
        (FromAnnotatedNamespace, Namespace(width=3, folder=Path("x"))),
        (FromDataclass, Config()),
    ],
    ids=["dict", "namespace", "annotated namespace", "dataclass"],
)
def test_one_object_that_holds_them_all_comes_back_as_one_object(saved, kind, config):
    path = saved(kind(config))
    loaded = kind.load_from_checkpoint(path)
    assert loaded.width == 3
    assert dict(loaded.hparams) == {"width": 3, "folder": Path("x")}
    assert kind.load_from_checkpoint(path, width=4).width == 4
    assert kind.load_from_checkpoint(path, conf=config, other=2).width == 3


def test_an_argument_that_is_given_is_not_rebuilt_from_the_file(saved):
    """Nor warned about: the stored value does not matter then."""

    class Model(Net):
        def __init__(self, conf):
            super().__init__()
            self.save_hyperparameters()

    path = saved(Model(Config()))
    assert Model.load_from_checkpoint(path, conf=Config(7)).hparams.conf == Config(7)


def test_loggers_get_them_unless_they_are_told_not_to(quiet, numbers):
    given = []

    class Keeper(L.loggers.Logger):
        name, version = "keeper", 0

        def log_metrics(self, metrics, step=None): ...

        def log_hyperparams(self, params, metrics=None):
            given.append(dict(params))

    class Silent(Net):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters(logger=False)

    quiet(logger=Keeper()).fit(Saved(3), numbers())
    quiet(logger=Keeper()).fit(Silent(3), numbers())
    assert given == [{"width": 3, "lr": 0.1, "folder": Path("a")}]
