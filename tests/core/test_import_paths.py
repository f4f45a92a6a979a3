"""Ported code finds what it imports: small things under `utilities`, small models under `demos`."""

import importlib

import pytest
import torch

import leyden.core as L
from leyden.core import utilities
from leyden.core.demos import boring_classes
from leyden.core.utilities import grad_norm, rank_zero_only
from leyden.core.utilities.model_helpers import is_overridden
from leyden.core.utilities.rank_zero import rank_zero_deprecation, rank_zero_info, rank_zero_warn


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("apply_func", "move_data_to_device"),
        ("combined_loader", "CombinedLoader"),
        ("enums", "GradClipAlgorithmType"),
        ("exceptions", "MisconfigurationException SIGTERMException"),
        ("grads", "grad_norm"),
        ("imports", "_OMEGACONF_AVAILABLE _RICH_AVAILABLE _TORCHVISION_AVAILABLE"),
        ("model_helpers", "is_overridden"),
        ("parsing", "AttributeDict"),
        ("rank_zero", "rank_zero_debug rank_zero_deprecation rank_zero_info rank_zero_only rank_zero_warn"),
        ("seed", "isolate_rng pl_worker_init_function reset_seed seed_everything"),
        ("types", "EVAL_DATALOADERS STEP_OUTPUT TRAIN_DATALOADERS LRSchedulerConfig OptimizerLRScheduler"),
        ("warnings", "PossibleUserWarning"),
    ],
)
def test_the_places_and_their_names(place, names):
    module = importlib.import_module(f"leyden.core.utilities.{place}")
    assert all(hasattr(module, name) for name in names.split())


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("accelerators", "CPUAccelerator CUDAAccelerator"),
        ("loggers", "CSVLogger Logger"),
        ("plugins", "HalfPrecision MixedPrecision"),
        ("strategies", "DDPStrategy FSDPStrategy"),
        ("utilities", "move_data_to_device rank_zero_only"),
        ("utilities.apply_func", "move_data_to_device"),
        ("utilities.rank_zero", "rank_zero_info rank_zero_only"),
        ("utilities.seed", "seed_everything"),
        ("wrappers", "is_wrapped _FabricModule _FabricOptimizer"),
    ],
)
def test_the_places_and_their_names_below_fabric(place, names):
    module = importlib.import_module(f"leyden.core.fabric.{place}")
    assert all(hasattr(module, name) for name in names.split())


def test_an_unknown_name_is_told_with_those_that_are_there():
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'; it has .*rank_zero_only"):
        _ = utilities.nothing


@pytest.mark.parametrize("model", ["BoringModel", "ManualOptimBoringModel"])
@pytest.mark.parametrize("data", [None, "BoringDataModule", "BoringDataModuleNoLen"])
def test_the_small_models_run_with_every_verb(quiet, model, data):
    module = getattr(boring_classes, model)()
    datamodule = getattr(boring_classes, data)() if data is not None else None
    trainer = quiet(fast_dev_run=2)
    trainer.fit(module, datamodule=datamodule)
    assert trainer.global_step == 2
    for verb in ("validate", "test", "predict"):
        getattr(trainer, verb)(module, datamodule=datamodule)
    assert trainer.state.finished


def test_the_small_data_sets():
    assert boring_classes.RandomDataset(3, 5)[4].shape == (3,)
    row = boring_classes.RandomDictDataset(3, 5)[0]
    assert torch.equal(row["a"] + 2, row["b"])
    assert len(list(boring_classes.RandomIterableDataset(3, 5))) == 5
    assert len(boring_classes.RandomIterableDatasetWithLen(3, 5)) == 5
    with pytest.raises(TypeError):
        len(boring_classes.RandomIterableDataset(3, 5))


def test_what_only_rank_zero_does(monkeypatch, caplog):
    calls = []
    first = rank_zero_only(calls.append)
    counted = rank_zero_only(lambda: 1, default=0)
    with caplog.at_level("INFO"):
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            first(rank)
            rank_zero_info("said by %s", rank)
            assert counted() == (1 if rank == "0" else 0)
            assert rank_zero_only.rank == int(rank)
    assert calls == ["0"]
    assert [record.getMessage() for record in caplog.records] == ["said by 0"]


def test_the_rank_can_be_set():
    try:
        rank_zero_only.rank = 3
        assert rank_zero_only(lambda: 1)() is None
    finally:
        rank_zero_only.rank = None
    assert rank_zero_only.rank == 0


def test_warnings_of_rank_zero_name_their_caller():
    with pytest.warns(UserWarning, match="look") as shown:
        rank_zero_warn("look")
    assert shown[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="old"):
        rank_zero_deprecation("old")


def test_hooks_that_are_overridden():
    assert is_overridden("setup", boring_classes.BoringDataModule())
    assert not is_overridden("setup", L.Callback())
    assert not is_overridden("setup", None)
    assert is_overridden("forward", torch.nn.Linear(1, 1), torch.nn.Module)
    with pytest.raises(ValueError, match="Expected a parent"):
        is_overridden("forward", torch.nn.Linear(1, 1))


def test_norms_of_gradients():
    layer = torch.nn.Linear(2, 1)
    assert grad_norm(layer, 2) == {}
    (layer.weight.sum() * 2 + layer.bias.sum() * -3).backward()
    norms = {name: float(norm) for name, norm in grad_norm(layer, "inf", group_separator=".").items()}
    assert norms == {"grad_inf_norm.weight": 2.0, "grad_inf_norm.bias": 3.0, "grad_inf_norm_total": 3.0}
    with pytest.raises(ValueError, match="`norm_type` must be a positive number"):
        grad_norm(layer, 0)
