"""The package as a whole: imports, examples in docstrings, the README."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import textwrap

import pytest

import leyden.export

MODULES = [module.name for module in pkgutil.walk_packages(leyden.export.__path__, "leyden.export.")]


def run(script):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy_and_a_missing_package_is_named_with_its_extra():
    script = """
        import sys
        import torch
        before = set(sys.modules)
        import leyden.export
        for name in leyden.export.__all__:
            getattr(leyden.export, name)
        leyden.export.list_formats()
        heavy = {"onnx", "onnxruntime", "onnxscript", "torch.onnx", "torch._dynamo", "sympy"}
        print(sorted(heavy & (set(sys.modules) - before)))

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("onnxscript", "onnxruntime"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        try:
            leyden.export.export(torch.nn.ReLU(), "m.onnx", inputs=torch.ones(2))
        except leyden.export.MissingExtraError as error:
            print(error, isinstance(error, ModuleNotFoundError), error.name)
    """
    heavy, message = run(script).splitlines()
    assert heavy == "[]"
    assert message == (
        "the format 'onnx' needs onnxscript, onnxruntime: pip install 'leyden-export[onnx]' True onnxscript"
    )


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_there_and_explained():
    for name in leyden.export.__all__:
        assert getattr(leyden.export, name).__doc__
    assert set(leyden.export.__all__) <= set(dir(leyden.export))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", leyden.export.__version__)
    with pytest.raises(AttributeError, match="exprot"):
        _ = leyden.export.exprot
