"""What an import brings along, and which way imports may go."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a package may use but never loads before it is used.
HEAVY = (
    "IPython", "PIL", "jsonargparse", "lightning", "matplotlib", "mlflow", "onnx", "onnxruntime", "onnxscript",
    "pandas", "rich", "scipy", "sklearn", "tensorboard", "torchmetrics", "torchvision", "wandb",
)  # fmt: skip
# The names that nearly every program uses, so that the lazy packages bring their modules along.
USED = {
    "core": ["LightningModule", "LightningDataModule", "Trainer", "Callback", "seed_everything"],
    "metrics": ["Metric", "MetricCollection", "Accuracy"],
    "loggers": ["TensorBoardLogger", "CSVLogger"],
    "bolts": ["list_models", "create_model"],
    "export": ["export", "load"],
}
PROBE = """
import json, sys
import torch
before = set(sys.modules)
import leyden.{package} as package
bare = set(sys.modules) - before
for name in {names}:
    getattr(package, name)
used = set(sys.modules) - before
print(json.dumps([sorted(bare), sorted(used)]))
"""


@cache
def loaded(package: str) -> tuple[list[str], list[str]]:
    """What a fresh process loads beside torch: by importing the package, and by then using its usual names."""
    code = PROBE.format(package=package, names=USED[package])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bare, used = json.loads(done.stdout)
    return bare, used


@pytest.mark.parametrize("package", USED)
def test_importing_a_package_loads_none_of_its_modules(package):
    bare, _ = loaded(package)
    assert [name for name in bare if name.startswith("leyden.")] == [f"leyden.{package}"]


@pytest.mark.parametrize("package", USED)
def test_the_usual_names_load_nothing_heavy(package):
    _, used = loaded(package)
    assert [name for name in used if name.partition(".")[0] in HEAVY] == []


@pytest.mark.parametrize("package", USED)
def test_the_usual_names_load_nothing_of_torch_that_import_torch_leaves_out(package):
    _, used = loaded(package)
    assert [name for name in used if name.startswith("torch.")] == []


def test_leyden_is_a_namespace_without_an_init_file():
    assert list(ROOT.glob("packages/*/src/leyden/__init__.py")) == []
    import leyden

    assert leyden.__file__ is None
    assert len(list(leyden.__path__)) == 5


def test_imports_between_packages_and_rooms_follow_the_contracts():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
