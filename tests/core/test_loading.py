"""load_from_checkpoint: what it takes, which hyper-parameters win, and what it says of weights that do not match."""

import io
from pathlib import Path

import pytest
import torch

import leyden.core as L
from leyden.core.demos.boring_classes import BoringDataModule, BoringModel
from leyden.core.errors import CheckpointError, LeydenWarning, MisconfigurationValueError


class Model(BoringModel):
    def __init__(self, a=1, b="x"):
        super().__init__()
        self.save_hyperparameters()


class Wider(BoringModel):
    def __init__(self):
        super().__init__()
        self.more = torch.nn.Linear(2, 2)


@pytest.fixture
def file(saved):
    return saved(Model(3))


@pytest.mark.parametrize("form", [str, Path, lambda path: io.BytesIO(Path(path).read_bytes())])
def test_a_path_and_an_open_file_are_taken(file, form):
    model = Model.load_from_checkpoint(form(file))
    assert model.hparams.a == 3
    expected = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "text"), [("h.yaml", "a: 7\n"), ("h.YML", "a: 7\n"), ("h.csv", "key,value\na,7\n")])
def test_hyper_parameters_of_a_file_take_the_place_of_the_stored_ones(file, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert dict(Model.load_from_checkpoint(file, hparams_file=tmp_path / name).hparams) == {"a": 7, "b": "x"}
    assert Model.load_from_checkpoint(file, hparams_file=str(tmp_path / name), a=9).hparams.a == 9


def test_values_of_a_table_are_python_literals_or_texts(file, tmp_path):
    (tmp_path / "h.csv").write_text('key,value\na,"[1, 2.5]"\nb,plain text\n')
    assert dict(Model.load_from_checkpoint(file, hparams_file=tmp_path / "h.csv").hparams) == {
        "a": [1, 2.5],
        "b": "plain text",
    }


def test_a_file_of_hyper_parameters_runs_no_code(file, tmp_path):
    (tmp_path / "h.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(CheckpointError, match=r"h\.yaml can not be read as plain YAML"):
        Model.load_from_checkpoint(file, hparams_file=tmp_path / "h.yaml")


def test_a_file_of_hyper_parameters_has_a_known_ending_and_names(file, tmp_path):
    with pytest.raises(MisconfigurationValueError, match=r"\.csv, \.yml or \.yaml is required for `hparams_file`"):
        Model.load_from_checkpoint(file, hparams_file="h.json")
    (tmp_path / "h.yaml").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds a list; hyper-parameters have names"):
        Model.load_from_checkpoint(file, hparams_file=tmp_path / "h.yaml")
    with pytest.warns(LeydenWarning, match="Missing Tags"):
        assert Model.load_from_checkpoint(file, hparams_file=tmp_path / "none.yaml").hparams.a == 1


def test_a_data_module_takes_such_a_file_too(saved, tmp_path):
    class Data(BoringDataModule):
        def __init__(self, n=1):
            super().__init__()
            self.save_hyperparameters()

    path = saved(BoringModel(), datamodule=Data(4))
    (tmp_path / "h.yaml").write_text("n: 7")
    assert Data.load_from_checkpoint(path).hparams.n == 4
    assert Data.load_from_checkpoint(path, hparams_file=tmp_path / "h.yaml").hparams.n == 7
    assert torch.load(path, weights_only=True)[Data.CHECKPOINT_HYPER_PARAMS_KEY] == {"n": 4}


@pytest.mark.parametrize("owner", [Model(), BoringDataModule()])
def test_it_is_a_method_of_the_class(owner, tmp_path):
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        owner.load_from_checkpoint(tmp_path / "a.ckpt")


def test_weights_that_do_not_match_are_an_error_or_are_named(saved):
    path = saved(BoringModel())
    with pytest.raises(RuntimeError, match=r"Missing key.*more\.weight"):
        Wider.load_from_checkpoint(path)
    with pytest.warns(LeydenWarning, match=r"in the model state dict but not in the checkpoint: \['more"):
        Wider.load_from_checkpoint(path, strict=False)
    with pytest.warns(LeydenWarning, match=r"not in the model state dict but in the checkpoint: \['more"):
        BoringModel.load_from_checkpoint(saved(Wider()), strict=False)


def test_strict_must_not_contradict_the_module(saved):
    class Loose(Wider):
        def __init__(self):
            super().__init__()
            self.strict_loading = False

    path = saved(BoringModel())
    with pytest.raises(MisconfigurationValueError, match=r"strict=True.*conflict with `Loose.strict_loading=False`"):
        Loose.load_from_checkpoint(path, strict=True)
    with pytest.warns(LeydenWarning, match="Found keys"):
        Loose.load_from_checkpoint(path)


def test_layers_that_configure_model_makes_are_there_before_their_weights(saved):
    class Late(BoringModel):
        def __init__(self):
            super().__init__()
            self.layer = None

        def configure_model(self):
            if self.layer is None:
                self.layer = torch.nn.Linear(32, 2)

    model = Late()
    path = saved(model)
    assert torch.equal(Late.load_from_checkpoint(path).layer.weight, model.layer.weight)


def test_where_weights_go_is_for_the_caller_to_say(file):
    places = []
    Model.load_from_checkpoint(file, map_location=lambda storage, place: places.append(place) or storage)
    assert places
    assert set(places) == {"cpu"}


def test_hyper_parameters_under_the_names_of_old_releases(file, tmp_path):
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["leyden"]
    checkpoint["module_arguments"] = checkpoint.pop(L.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY)
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert Model.load_from_checkpoint(tmp_path / "old.ckpt").hparams.a == 3


def test_an_explicit_no_to_weights_only_is_trust(tmp_path, file):
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["note"] = Path("somewhere")  # only code can rebuild it
    torch.save(checkpoint, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match="trust=True"):
        Model.load_from_checkpoint(tmp_path / "own.ckpt")
    assert Model.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=False).hparams.a == 3
