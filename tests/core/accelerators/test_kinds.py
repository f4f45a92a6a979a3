"""Each kind of device: what it is called, what it takes, and what it says about its devices."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from leyden.core.accelerators import (
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    XLAAccelerator,
    XPUAccelerator,
    find_usable_cuda_devices,
)
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    MissingExtraError,
)


@pytest.fixture
def torch_xla(tmp_path, monkeypatch):
    """A package of this name that can be found, on the CPU by way of its runtime."""
    (tmp_path / "torch_xla").mkdir()
    (tmp_path / "torch_xla" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    yield
    sys.modules.pop("torch_xla", None)


@pytest.fixture
def psutil(monkeypatch):
    module = ModuleType("psutil")
    module.virtual_memory = lambda: SimpleNamespace(percent=40.0)
    module.cpu_percent = lambda: 7.5
    module.swap_memory = lambda: SimpleNamespace(percent=1.0)
    monkeypatch.setitem(sys.modules, "psutil", module)


@pytest.mark.parametrize(
    ("kind", "name", "backend"),
    [
        (CPUAccelerator, "cpu", "gloo"),
        (CUDAAccelerator, "cuda", "nccl"),
        (MPSAccelerator, "mps", "gloo"),
        (XLAAccelerator, "tpu", "xla"),
        (XPUAccelerator, "xpu", "xccl"),
    ],
)
def test_names_and_backends(kind, name, backend):
    assert kind.name() == name
    assert kind.backend == backend


def test_what_is_there(machine):
    machine(cuda=2, xpu=1, mps=True)
    assert CPUAccelerator.is_available()
    assert CUDAAccelerator.is_available()
    assert XPUAccelerator.is_available()
    assert MPSAccelerator.is_available()
    machine()
    assert CPUAccelerator.is_available()
    assert not CUDAAccelerator.is_available()
    assert not XPUAccelerator.is_available()
    assert not MPSAccelerator.is_available()


def test_a_mac_may_say_that_it_has_no_gpu(machine, monkeypatch):
    machine(mps=True)
    monkeypatch.setenv("DISABLE_MPS", "1")
    assert not MPSAccelerator.is_available()


@pytest.mark.parametrize(
    ("kind", "called", "other"),
    [
        (CPUAccelerator, "CPU", "cuda:0"),
        (CUDAAccelerator, "GPU", "cpu"),
        (MPSAccelerator, "MPS", "cpu"),
        (XPUAccelerator, "XPU", "cuda:1"),
    ],
)
def test_a_device_of_another_kind_is_refused(kind, called, other):
    with pytest.raises(MisconfigurationException, match=rf"Device should be {called}, got {other} instead\."):
        kind().setup_device(torch.device(other))


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_gpu_becomes_the_current_one(monkeypatch, kind):
    chosen, emptied = [], []
    monkeypatch.setattr(getattr(torch, kind), "set_device", chosen.append)
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(kind))
    monkeypatch.setattr(getattr(torch, kind), "memory_stats", lambda device: {"asked": device})
    accelerator = {"cuda": CUDAAccelerator, "xpu": XPUAccelerator}[kind]()
    (device,) = accelerator.get_parallel_devices([1])
    accelerator.setup_device(device)
    accelerator.setup_device(torch.device(kind))  # the current one already
    assert chosen == [torch.device(kind, 1)]
    assert accelerator.get_device_stats(device) == {"asked": device}
    accelerator.teardown()
    assert emptied == [kind]


@pytest.mark.parametrize(("kind", "prefix"), [(CPUAccelerator, "cpu"), (MPSAccelerator, "M1")])
def test_how_busy_the_machine_is(psutil, kind, prefix):
    figures = kind().get_device_stats("cpu")
    assert figures == {f"{prefix}_vm_percent": 40.0, f"{prefix}_percent": 7.5, f"{prefix}_swap_percent": 1.0}


@pytest.mark.parametrize(("kind", "called"), [(CPUAccelerator, "CPU"), (MPSAccelerator, "MPS")])
def test_how_busy_the_machine_is_needs_a_package(monkeypatch, kind, called):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtraError, match=f"Fetching {called} device stats requires `psutil` to be installed"):
        kind().get_device_stats("cpu")


@pytest.mark.parametrize(("devices", "count"), [(1, 1), (3, 3), ("2", 2), (" 2 ", 2)])
def test_processes_on_the_cpu(devices, count):
    assert CPUAccelerator.parse_devices(devices) == count
    assert CPUAccelerator.get_parallel_devices(devices) == [torch.device("cpu")] * count


@pytest.mark.parametrize("devices", [0, -1, "-1", "0,1", [0], None, True, 1.5, "two"])
def test_what_the_cpu_does_not_take(devices):
    with pytest.raises(MisconfigurationTypeError, match=r"`CPUAccelerator` should be an int > 0; got"):
        CPUAccelerator.parse_devices(devices)


def test_auto_on_the_cpu_is_what_another_launcher_has_started(monkeypatch):
    assert CPUAccelerator.auto_device_count() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert CPUAccelerator.auto_device_count() == 3


def test_xla_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    assert not XLAAccelerator.is_available()
    with pytest.raises(MissingExtraError, match=r"leyden-core\[xla\]") as raised:
        XLAAccelerator()
    assert raised.value.name == "torch_xla"


def test_xla_on_the_cpu(torch_xla, monkeypatch):
    accelerator = XLAAccelerator()
    assert XLAAccelerator.is_available()
    assert XLAAccelerator.auto_device_count() == 1
    monkeypatch.setenv("CPU_NUM_DEVICES", "4")
    assert XLAAccelerator.parse_devices("auto") == XLAAccelerator.parse_devices("4") == 4
    assert [str(d) for d in accelerator.get_parallel_devices(4)] == ["xla:0", "xla:1", "xla:2", "xla:3"]
    assert XLAAccelerator.parse_devices(" 1 ") == 1
    assert [str(d) for d in accelerator.get_parallel_devices("2,")] == ["xla:2"]
    accelerator.setup_device(torch.device("xla", 2))
    with pytest.raises(MisconfigurationException, match="Device should be XLA, got cpu instead"):
        accelerator.setup_device(torch.device("cpu"))


@pytest.mark.parametrize("devices", [0, 2, 5, -1, [4], [0, 1], [], "3"])
def test_what_xla_can_not_start(torch_xla, monkeypatch, devices):
    monkeypatch.setenv("CPU_NUM_DEVICES", "4")
    with pytest.raises(MisconfigurationValueError, match=r"can only be 'auto', 1, 4 or \[<0-3>\] for TPUs\. Got"):
        XLAAccelerator.parse_devices(devices)


def test_the_memory_of_an_xla_device(torch_xla, monkeypatch):
    core, model = ModuleType("torch_xla.core"), ModuleType("torch_xla.core.xla_model")
    asked = []

    def get_memory_info(device):
        asked.append(device)
        return {"bytes_limit": 8 * 2**20, "bytes_used": 2 * 2**20, "peak_bytes_used": 3 * 2**20}

    model.get_memory_info = get_memory_info
    monkeypatch.setitem(sys.modules, "torch_xla.core", core)
    monkeypatch.setitem(sys.modules, "torch_xla.core.xla_model", model)
    figures = XLAAccelerator().get_device_stats("xla:0")
    assert figures == {"avg. free memory (MB)": 6.0, "avg. peak memory (MB)": 3.0}
    assert asked == ["xla:0"]


@pytest.fixture
def occupied(monkeypatch):
    """Make tensors on some GPUs fail, as those of other processes do in exclusive mode."""
    real = torch.tensor

    def begin(numbers):
        def tensor(value, device):
            if device.index in numbers:
                raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
            return real(value)

        monkeypatch.setattr(torch, "tensor", tensor)

    return begin


@pytest.mark.parametrize(("taken", "wanted", "found"), [([], -1, [0, 1, 2]), ([0], 2, [1, 2]), ([1], -1, [0, 2])])
def test_usable_gpus(machine, occupied, taken, wanted, found):
    machine(cuda=3)
    occupied(taken)
    assert find_usable_cuda_devices(wanted) == found


def test_too_few_usable_gpus(machine, occupied):
    machine(cuda=3)
    occupied([0, 2])
    with pytest.raises(MisconfigurationRuntimeError, match=r"find 2 devices but only 1 are currently .* \[0, 2\]"):
        find_usable_cuda_devices(2)
    with pytest.raises(MisconfigurationValueError, match=r"find 4 devices but this machine only has 3 GPUs"):
        find_usable_cuda_devices(4)
    with pytest.raises(MisconfigurationValueError, match=r"find -2 devices"):
        find_usable_cuda_devices(-2)
    machine()
    assert find_usable_cuda_devices(0) == []
    with pytest.raises(MisconfigurationValueError, match=r"no visible CUDA devices on this machine"):
        find_usable_cuda_devices()
