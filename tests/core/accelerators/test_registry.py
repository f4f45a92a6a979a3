"""The names of kinds of devices: core's own, registered ones, and those of installed distributions."""

import os
import subprocess
import sys
import textwrap

import pytest

from leyden.core.accelerators import AcceleratorRegistry, CPUAccelerator, CUDAAccelerator, XPUAccelerator
from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError

PLUG_IN = """
from leyden.core.accelerators import CPUAccelerator
class Theirs(CPUAccelerator):
    @staticmethod
    def name():
        return "theirs"
"""


class Sized(CPUAccelerator):
    def __init__(self, size=1, fast=False):
        self.size, self.fast = size, fast


@pytest.fixture(autouse=True)
def _forgets():
    yield
    for name in AcceleratorRegistry.available_accelerators() - {"cpu", "cuda", "mps", "tpu", "xpu"}:
        AcceleratorRegistry.remove(name)


def test_own_names():
    assert AcceleratorRegistry.available_accelerators() >= {"cpu", "cuda", "mps", "tpu", "xpu"}
    assert "cuda" in AcceleratorRegistry
    assert "hpu" not in AcceleratorRegistry
    assert type(AcceleratorRegistry.get("cpu")) is CPUAccelerator
    assert AcceleratorRegistry["cuda"]["accelerator"] is CUDAAccelerator
    assert len(AcceleratorRegistry) == len(AcceleratorRegistry.available_accelerators())
    assert str(AcceleratorRegistry).startswith("Registered Accelerators: cpu, cuda")


def test_a_class_is_called_with_what_was_registered():
    assert AcceleratorRegistry.register("sized", Sized, description="with a size", size=3, fast=True) is Sized
    made = AcceleratorRegistry.get("sized")
    assert (made.size, made.fast) == (3, True)
    assert AcceleratorRegistry.get("sized") is not made
    assert AcceleratorRegistry["sized"] == {
        "description": "with a size",
        "init_params": {"size": 3, "fast": True},
        "accelerator": Sized,
        "accelerator_name": "sized",
    }


def test_as_a_decorator():
    @AcceleratorRegistry.register("decorated", size=2)
    class Decorated(Sized):
        pass

    assert type(AcceleratorRegistry.get("decorated")) is Decorated
    assert AcceleratorRegistry.get("decorated").size == 2


@pytest.mark.parametrize("name", ["sized", "cpu"])
def test_a_name_is_given_once_unless_it_is_said_otherwise(name):
    if name not in AcceleratorRegistry:
        AcceleratorRegistry.register(name, CPUAccelerator)
    with pytest.raises(MisconfigurationException, match=rf"'{name}' is already present in the registry.*override=True"):
        AcceleratorRegistry.register(name, Sized)
    AcceleratorRegistry.register(name, Sized, override=True, size=5)
    assert AcceleratorRegistry.get(name).size == 5
    AcceleratorRegistry.register(name, CPUAccelerator, override=True)


def test_a_removed_name_is_gone():
    AcceleratorRegistry.register("sized", Sized)
    AcceleratorRegistry.remove("sized")
    assert "sized" not in AcceleratorRegistry
    with pytest.raises(KeyError, match=r"'sized' not found in registry\. Available names: cpu, cuda, mps, tpu, xpu"):
        AcceleratorRegistry.get("sized")
    with pytest.raises(KeyError):
        AcceleratorRegistry["sized"]
    with pytest.raises(KeyError):
        AcceleratorRegistry.remove("sized")
    assert AcceleratorRegistry.get("sized", 7) == 7


def test_an_own_name_may_be_removed_and_given_again():
    AcceleratorRegistry.remove("xpu")
    assert "xpu" not in AcceleratorRegistry
    assert "xpu" not in AcceleratorRegistry.available_accelerators()
    AcceleratorRegistry.register("xpu", XPUAccelerator)
    assert type(AcceleratorRegistry.get("xpu")) is XPUAccelerator


def test_what_is_no_name():
    with pytest.raises(MisconfigurationTypeError, match=r"`name` must be a str, found 3"):
        AcceleratorRegistry.register(3, Sized)
    for name in ("auto", "gpu", "xla"):
        with pytest.raises(MisconfigurationException, match=rf"`accelerator='{name}'` has a meaning of its own"):
            AcceleratorRegistry.register(name, Sized, override=True)


def test_names_of_installed_distributions(tmp_path):
    for name, names in {"first": ["theirs", "Both", "cpu"], "second": ["both", "broken"]}.items():
        (tmp_path / f"{name}.py").write_text(PLUG_IN)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{each} = {'nowhere' if each == 'broken' else name}:Theirs" for each in names]
        (info / "entry_points.txt").write_text("\n".join(["[leyden.accelerators]", *lines]))
    code = """
        import sys
        from leyden.core.accelerators import AcceleratorRegistry, CPUAccelerator
        from leyden.core.accelerators.choice import choose_accelerator
        from leyden.core.errors import MisconfigurationException

        assert type(AcceleratorRegistry.get("cpu")) is CPUAccelerator
        assert {"theirs", "both", "broken"} <= AcceleratorRegistry.available_accelerators()
        assert "torch_xla" not in sys.modules and "first" not in sys.modules
        kind, devices = choose_accelerator("theirs", 2)
        assert kind.name() == "theirs" and len(devices) == 2, devices
        assert AcceleratorRegistry["theirs"]["description"] == "Theirs"
        for name in ("both", "xpu"):
            try:
                choose_accelerator(name, 1)
            except MisconfigurationException as error:
                print(error)
    """
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    clash, absent = run.stdout.splitlines()
    assert "'both' is registered by first and second: uninstall one of them" in clash
    # neither what two distributions claim nor what can not be imported is there to use
    assert absent.endswith("`Trainer`: ['cpu', 'theirs'].")
