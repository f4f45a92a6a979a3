"""Every example in the docstrings of core runs, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
import signal

import pytest
import torch

import leyden.core as L

MODULES = ["leyden.core", *sorted(m.name for m in pkgutil.walk_packages(L.__path__, "leyden.core."))]
OWN = "leyden.core."


@pytest.fixture
def _as_it_was(tmp_path, monkeypatch):
    """Examples may seed, signal, and write into the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "so that it is put back")
        monkeypatch.delenv(name)
    handler = signal.getsignal(signal.SIGTERM)
    with L.isolate_rng():
        yield
    assert signal.getsignal(signal.SIGTERM) is handler
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("_as_it_was")
def test_the_examples_of_a_module_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def public(package):
    for name in package.__all__:
        value = getattr(package, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(OWN):
            yield pytest.param(value, id=f"{package.__name__}.{name}")


@pytest.mark.parametrize("value", [*public(L), *public(L.callbacks)])
def test_a_public_name_is_described_with_an_example(value):
    assert value.__doc__ is not None
    summary = value.__doc__.strip().splitlines()[0]
    assert summary.endswith((".", ":")), f"a docstring begins with one sentence; this one with {summary!r}"
    assert "Examples:" in value.__doc__
    assert ">>> " in value.__doc__


@pytest.mark.parametrize("package", [L, L.callbacks], ids=lambda p: p.__name__)
def test_public_names_are_there_and_listed(package):
    assert list(package.__all__) == sorted(set(package.__all__))
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        package.Nothing


def test_a_misspelt_name_is_told_with_the_nearest_one():
    with pytest.raises(AttributeError, match="did you mean 'LightningModule'"):
        L.LightingModule


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert L.__version__ == version("leyden-core")
