import doctest
import importlib
import pkgutil

import pytest

import leyden.core.loggers

NAME = "leyden.core.loggers"
MODULES = [NAME, *(f"{NAME}.{module.name}" for module in pkgutil.iter_modules(leyden.core.loggers.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_there():
    for name in leyden.core.loggers.__all__:
        assert getattr(leyden.core.loggers, name).__doc__
    assert set(leyden.core.loggers.__all__) <= set(dir(leyden.core.loggers))
    with pytest.raises(AttributeError, match="Nothing"):
        leyden.core.loggers.Nothing
