"""Which devices the flags `accelerator` and `devices` ask for, on machines with other devices than this one."""

import sys

import numpy as np
import pytest
import torch

from leyden.core.accelerators import (
    AcceleratorRegistry,
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    choice,
)
from leyden.core.accelerators.choice import choose_accelerator
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    MissingExtraError,
)


def chosen(accelerator, devices):
    kind, found = choose_accelerator(accelerator, devices)
    return kind.name(), [str(device) for device in found]


@pytest.mark.parametrize(
    ("devices_of", "accelerator", "devices", "expected"),
    [
        ({}, "auto", "auto", ("cpu", ["cpu"])),
        ({}, "auto", 2, ("cpu", ["cpu", "cpu"])),
        ({}, "auto", [0], ("cpu", ["cpu"])),
        ({}, "cpu", "3", ("cpu", ["cpu"] * 3)),
        ({"cuda": 2}, "auto", "auto", ("cuda", ["cuda:0", "cuda:1"])),
        ({"cuda": 2}, "auto", [1], ("cuda", ["cuda:1"])),
        ({"cuda": 2}, "cpu", "auto", ("cpu", ["cpu"])),
        ({"cuda": 4}, "gpu", "0,2", ("cuda", ["cuda:0", "cuda:2"])),
        ({"cuda": 4}, "cuda", -1, ("cuda", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"])),
        ({"mps": True}, "auto", "auto", ("mps", ["mps:0"])),
        ({"mps": True}, "gpu", 1, ("mps", ["mps:0"])),
        ({"mps": True}, "mps", "auto", ("mps", ["mps:0"])),
        ({"xpu": 2}, "auto", "auto", ("xpu", ["xpu:0", "xpu:1"])),
        ({"xpu": 2}, "xpu", [1], ("xpu", ["xpu:1"])),
        ({"cuda": 1, "xpu": 1}, "auto", 1, ("cuda", ["cuda:0"])),
    ],
)
def test_what_is_chosen(machine, devices_of, accelerator, devices, expected):
    machine(**devices_of)
    assert chosen(accelerator, devices) == expected


def test_objects_and_classes(machine):
    machine(cuda=2)
    own = CUDAAccelerator()
    kind, devices = choose_accelerator(own, 1)
    assert kind is own
    assert devices == [torch.device("cuda", 0)]
    assert chosen(CUDAAccelerator, 1) == ("cuda", ["cuda:0"])


def test_a_registered_name():
    class Three(CPUAccelerator):
        def __init__(self, count):
            self.count = count

        @staticmethod
        def auto_device_count():
            return 3

        @staticmethod
        def name():
            return "three"

    AcceleratorRegistry.register("three", Three, count=3)
    try:
        kind, devices = choose_accelerator("three", "auto")
        assert isinstance(kind, Three)
        assert kind.count == 3
        assert len(devices) == 3
        with pytest.raises(MisconfigurationValueError, match=r"auto, cpu, gpu, .*, three; an"):
            choose_accelerator("treh", 1)
    finally:
        AcceleratorRegistry.remove("three")


@pytest.mark.parametrize("accelerator", ["gpuu", "CPU", None, 1, object(), int])
def test_no_kind_of_that_name(accelerator):
    with pytest.raises(MisconfigurationValueError, match=r"invalid accelerator name: `accelerator=.*auto, cpu, gpu"):
        choose_accelerator(accelerator, "auto")


@pytest.mark.parametrize(
    ("accelerator", "kind"), [("cuda", "CUDAAccelerator"), ("mps", "MPSAccelerator"), ("xpu", "XPUAccelerator")]
)
def test_a_kind_that_this_machine_has_not(machine, accelerator, kind):
    machine()
    rule = rf"`{kind}` can not run on your system since the accelerator is not available.*of `Trainer`: \['cpu'\]"
    with pytest.raises(MisconfigurationException, match=rule):
        choose_accelerator(accelerator, 1)


def test_an_object_whose_kind_this_machine_has_not(machine):
    machine(cuda=1)
    with pytest.raises(MisconfigurationException, match=r"`MPSAccelerator` can not run.*\['cpu', 'cuda'\]"):
        choose_accelerator(MPSAccelerator(), 1)


def test_no_gpu_at_all(machine):
    machine()
    with pytest.raises(MisconfigurationException, match=r"No supported gpu backend found!.*\['cpu'\]"):
        choose_accelerator("gpu", 1)


@pytest.mark.parametrize("accelerator", ["tpu", "xla"])
def test_tpus_need_a_package(monkeypatch, accelerator):
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    with pytest.raises(MissingExtraError, match=r"can not run on your system since.*leyden-core\[xla\]"):
        choose_accelerator(accelerator, 1)


def test_auto_takes_tpus_first(machine, monkeypatch, tmp_path):
    (tmp_path / "torch_xla.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    machine(cuda=2)
    monkeypatch.setattr(choice, "tpu_count", lambda: 4)
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    monkeypatch.setenv("CPU_NUM_DEVICES", "4")
    assert chosen("auto", "auto") == ("tpu", ["xla:0", "xla:1", "xla:2", "xla:3"])


@pytest.mark.parametrize("devices", [0, "0", [], (), "", False])
@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu", "nothing"])
def test_no_device(accelerator, devices):
    rule = rf"value is not a valid input using {accelerator} accelerator: `devices` must ask for at least one device"
    with pytest.raises(MisconfigurationException, match=rule):
        choose_accelerator(accelerator, devices)


def test_no_device_names_the_class_of_an_object():
    with pytest.raises(MisconfigurationException, match=r"valid input using CPUAccelerator accelerator"):
        choose_accelerator(CPUAccelerator(), 0)
    with pytest.raises(MisconfigurationException, match=r"valid input using CPUAccelerator accelerator"):
        choose_accelerator(CPUAccelerator, 0)


def test_text_that_comes_to_no_device(machine):
    machine(cuda=1)
    with pytest.raises(MisconfigurationException, match=r"devices=' 0 '.*is not a valid input.*'cuda' gives no device"):
        choose_accelerator("gpu", " 0 ")


@pytest.mark.parametrize("devices", [-1, "-1", "0,1", "1,", [1], [0, 1], (0, 1)])
def test_numbers_of_gpus_on_a_machine_without_any(machine, devices):
    machine()
    with pytest.raises(MisconfigurationTypeError, match=r"asks for GPUs, and this machine has none.*an int > 0"):
        choose_accelerator("auto", devices)


@pytest.mark.parametrize("devices", [None, 1.5, True, np.ones(2), "two"])
@pytest.mark.parametrize("cuda", [0, 1])
def test_devices_of_a_wrong_type(machine, cuda, devices):
    machine(cuda=cuda)
    with pytest.raises(MisconfigurationException, match=r"`?devices`?|Device IDs"):
        choose_accelerator("auto", devices)


def test_another_launcher_says_how_many(machine, monkeypatch):
    machine(cuda=4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert chosen("auto", "auto") == ("cuda", ["cuda:0", "cuda:1"])
    assert chosen("cpu", "auto") == ("cpu", ["cpu", "cpu"])
    machine(mps=True)
    assert chosen("auto", "auto") == ("mps", ["mps:0"])


def test_one_gpu_in_a_notebook(machine, monkeypatch, caplog):
    machine(cuda=4)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with caplog.at_level("INFO"):
        assert chosen("auto", "auto") == ("cuda", ["cuda:0"])
    assert "will use only 1 of 4 GPUs" in caplog.text
    assert chosen("auto", 4)[1] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
