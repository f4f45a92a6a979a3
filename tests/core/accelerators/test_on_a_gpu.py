"""A real GPU, on machines that have one."""

import pytest
import torch

from leyden.core.accelerators import CUDAAccelerator, find_usable_cuda_devices
from leyden.core.accelerators.choice import choose_accelerator

pytestmark = pytest.mark.gpu


def test_the_first_gpu_is_chosen_made_current_and_measured():
    current = torch.cuda.current_device()
    accelerator, (device,) = choose_accelerator("gpu", 1)
    assert isinstance(accelerator, CUDAAccelerator)
    accelerator.setup_device(device)
    try:
        assert torch.cuda.current_device() == device.index == 0
        held = torch.zeros(2**20, device=device)
        figures = accelerator.get_device_stats(device)
        assert figures["allocated_bytes.all.current"] >= held.nbytes
        del held
        accelerator.teardown()
        assert torch.cuda.memory_reserved(device) <= figures["reserved_bytes.all.current"]
    finally:
        torch.cuda.set_device(current)


def test_a_gpu_can_be_used():
    assert 0 in find_usable_cuda_devices()
    assert CUDAAccelerator.auto_device_count() >= 1
