"""What the flag `devices` means for devices that have numbers."""

import pytest

from leyden.core.accelerators import CUDAAccelerator, MPSAccelerator, XPUAccelerator
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationTypeError,
    MisconfigurationValueError,
)


@pytest.mark.parametrize(
    ("devices", "numbers"),
    [
        (1, [0]),
        (3, [0, 1, 2]),
        ("3", [0, 1, 2]),
        (" 2 ", [0, 1]),
        (-1, [0, 1, 2, 3]),
        ("-1", [0, 1, 2, 3]),
        ("auto", [0, 1, 2, 3]),
        ([0], [0]),
        ([3, 1], [3, 1]),
        ((0, 2), [0, 2]),
        ("0,", [0]),
        ("3,", [3]),
        ("0,2", [0, 2]),
        (" 0, 2 ,", [0, 2]),
        (0, None),
        ("0", None),
        ([], None),
        ("[]", None),
    ],
)
@pytest.mark.parametrize("kind", [CUDAAccelerator, XPUAccelerator])
def test_every_way_to_write_it(machine, kind, devices, numbers):
    machine(cuda=4, xpu=4)
    assert kind.parse_devices(devices) == numbers


@pytest.mark.parametrize("devices", [None, True, 1.5, {0}, {0: 1}, [0, "1"], [0, True], [1.0], object()])
def test_a_wrong_type(machine, devices):
    machine(cuda=4)
    with pytest.raises(
        MisconfigurationTypeError, match=r"must be an int, a string, a sequence of ints, but you passed"
    ):
        CUDAAccelerator.parse_devices(devices)


@pytest.mark.parametrize("devices", ["", "two", "0,x", "1.5", "0;1"])
def test_text_without_a_number(machine, devices):
    machine(cuda=4)
    with pytest.raises(MisconfigurationValueError, match=rf"`devices='{devices}'` has no number of devices"):
        CUDAAccelerator.parse_devices(devices)


def test_a_number_below_all(machine):
    machine(cuda=4)
    with pytest.raises(MisconfigurationValueError, match=r"or -1 for all; got -2"):
        CUDAAccelerator.parse_devices(-2)


@pytest.mark.parametrize("devices", [[0, 0], "1,1", (0, 2, 0)])
def test_a_device_asked_for_twice(machine, devices):
    machine(cuda=4)
    with pytest.raises(MisconfigurationException, match=r"Device ID's \(GPU\) must be unique\."):
        CUDAAccelerator.parse_devices(devices)


@pytest.mark.parametrize(("devices", "wanted"), [(3, "0, 1, 2"), ([2], "2"), ("0,7", "0, 7"), ([-1], "-1")])
def test_a_device_that_is_not_there(machine, devices, wanted):
    machine(cuda=2)
    with pytest.raises(MisconfigurationException, match=rf"You requested gpu: \[{wanted}\]\n But your.*has: \[0, 1\]"):
        CUDAAccelerator.parse_devices(devices)


def test_all_of_none(machine):
    machine()
    with pytest.raises(MisconfigurationException, match=r"GPUs requested but none are available"):
        CUDAAccelerator.parse_devices(-1)
    with pytest.raises(MisconfigurationException, match=r"your machine only has: \[\]"):
        CUDAAccelerator.parse_devices(1)


def test_the_one_gpu_of_a_mac(machine):
    machine(mps=True)
    assert MPSAccelerator.parse_devices("auto") == MPSAccelerator.parse_devices(-1) == [0]
    assert [str(d) for d in MPSAccelerator.get_parallel_devices(1)] == ["mps:0"]
    with pytest.raises(MisconfigurationException, match=r"You requested gpu: \[0, 1\]"):
        MPSAccelerator.parse_devices(2)


@pytest.mark.parametrize(("visible", "processes", "count"), [(8, 2, 2), (8, 8, 8), (2, 4, 2), (0, 2, 0)])
def test_auto_is_one_device_per_process_of_another_launcher(machine, monkeypatch, visible, processes, count):
    machine(cuda=visible)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert CUDAAccelerator.auto_device_count() == count


@pytest.mark.parametrize("devices", ["auto", 4, -1, [0, 1, 2, 3]])
def test_each_process_of_another_launcher_may_see_its_own_device_only(machine, monkeypatch, devices):
    machine(cuda=1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert CUDAAccelerator.parse_devices(devices) == [0, 0, 0, 0]
    with pytest.raises(MisconfigurationException, match=r"You requested gpu: \[0, 1\]"):
        CUDAAccelerator.parse_devices(2)


def test_a_launcher_that_says_nothing_of_use_is_none(machine, monkeypatch):
    machine(cuda=2)
    for text in ("", "0", "many"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
        assert CUDAAccelerator.auto_device_count() == 2
