import doctest
import importlib
import pkgutil

import pytest

import leyden.loggers

NAME = "leyden.loggers"
MODULES = [NAME, *(f"{NAME}.{module.name}" for module in pkgutil.iter_modules(leyden.loggers.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_there():
    for name in leyden.loggers.__all__:
        assert getattr(leyden.loggers, name).__doc__
    assert set(leyden.loggers.__all__) <= set(dir(leyden.loggers))
    assert leyden.loggers.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="Nothing"):
        leyden.loggers.Nothing
