import platform

import pytest
import torch

collect_ignore = [] if torch.cuda.is_available() else ["test_on_a_gpu.py"]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    """No test is part of another launcher's run, unless it says so."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.fixture
def machine(monkeypatch):
    """Make torch see devices that are not there."""

    def has(cuda=0, xpu=0, mps=False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.xpu, "device_count", lambda: xpu)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(platform, "processor", lambda: "arm" if mps else "x86_64")
        monkeypatch.delenv("DISABLE_MPS", raising=False)

    return has
