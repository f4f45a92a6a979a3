"""What every test must leave as it was: environment, signal handlers, threads and process groups."""

import os
import signal
import threading

import pytest
import torch

# an error in a logger or a progress bar of a test is an error, also in the processes that tests start
os.environ.setdefault("LEYDEN_STRICT", "1")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def _leaves_nothing_behind():
    environment = dict(os.environ)
    handlers = {s: signal.getsignal(s) for s in SIGNALS}
    threads = set(threading.enumerate())
    folder = os.getcwd()
    yield
    changed = {k for k in set(environment) | set(os.environ) if environment.get(k) != os.environ.get(k)}
    changed -= {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}  # pytest's own, and torch's own
    assert not changed, f"environment variables were left behind: {sorted(changed)}"
    for number, handler in handlers.items():
        assert signal.getsignal(number) is handler, f"the handler of {number.name} was left behind"
    left = [t for t in threading.enumerate() if t not in threads and t.is_alive() and not t.daemon]
    for thread in left:
        thread.join(5.0)
    assert not [t for t in left if t.is_alive()], f"threads were left behind: {left}"
    assert os.getcwd() == folder, "the working folder was changed"
    if torch.distributed.is_available():
        assert not torch.distributed.is_initialized(), "a process group was left behind"


@pytest.fixture
def _lenient(monkeypatch):
    """Errors of loggers, progress bars and monitors do not end a run, as outside of tests."""
    monkeypatch.delenv("LEYDEN_STRICT")


@pytest.fixture
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
