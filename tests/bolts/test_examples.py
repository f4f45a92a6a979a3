import doctest
import importlib
import pkgutil

import pytest

import leyden.bolts

NAME = "leyden.bolts"
MODULES = [NAME, *(f"{NAME}.{module.name}" for module in pkgutil.iter_modules(leyden.bolts.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_there_and_documented():
    for name in leyden.bolts.__all__:
        assert getattr(leyden.bolts, name).__doc__
    assert set(leyden.bolts.__all__) <= set(dir(leyden.bolts))
    assert leyden.bolts.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="Nothing"):
        leyden.bolts.Nothing
