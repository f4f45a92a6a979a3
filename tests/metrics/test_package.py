"""The package as a whole: what importing it costs, its names, its examples."""

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import leyden.metrics

MODULES = sorted(module.name for module in pkgutil.walk_packages(leyden.metrics.__path__, "leyden.metrics."))
PACKAGES = ["leyden.metrics", *(name for name in MODULES if hasattr(importlib.import_module(name), "__path__"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_public_class_and_function_has_an_example():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            plain = isinstance(thing, type) and (issubclass(thing, (Exception, Warning)) or name == "StateSpec")
            if callable(thing) and not plain:
                assert ">>>" in (thing.__doc__ or ""), f"{package}.{name} has no example"


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_names_are_the_public_ones(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert set(module.__all__) == set(module._HOMES)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = module.Nothing


def loaded_by(statement):
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    return set(json.loads(done.stdout))


def test_importing_costs_no_more_than_importing_torch():
    everything = "from leyden.metrics import *; from leyden.metrics.functional import *"
    extra = loaded_by(everything) - loaded_by("import torch")
    assert not {name for name in extra if name.partition(".")[0] == "torch"}
    third = {"torchvision", "scipy", "sklearn", "matplotlib", "torchmetrics", "pandas"}
    assert not {name for name in extra if name.partition(".")[0] in third}
    assert "leyden.metrics.metric" not in loaded_by("import leyden.metrics")


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert leyden.metrics.__version__ == version("leyden-metrics")
