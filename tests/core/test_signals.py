"""A signal sets a flag, once; everything else about signals stays as the process had it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from leyden.core.signals import CAUGHT, StopFlag


@pytest.fixture
def _handlers():
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


pytestmark = pytest.mark.usefixtures("_handlers")


@pytest.mark.parametrize("number", CAUGHT)
def test_a_signal_sets_the_flag_and_the_code_goes_on(number):
    flag, reached = StopFlag(), False
    with flag.listening():
        assert flag.signum is None
        signal.raise_signal(number)
        reached = True
    assert (flag.signum, reached) == (number, True)


def test_the_handlers_are_put_back_also_after_an_exception():
    before = [signal.getsignal(number) for number in CAUGHT]
    with pytest.raises(KeyError), StopFlag().listening():
        signal.raise_signal(signal.SIGTERM)
        raise KeyError
    assert [signal.getsignal(number) for number in CAUGHT] == before


def test_a_second_ctrl_c_is_an_ordinary_one():
    flag = StopFlag()
    with pytest.raises(KeyboardInterrupt), flag.listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert flag.signum == signal.SIGINT


def test_a_second_sigterm_ends_the_process_at_once():
    code = (
        "import signal; from leyden.core.signals import StopFlag\n"
        "with StopFlag().listening():\n"
        "    signal.raise_signal(signal.SIGTERM); print('first', flush=True); signal.raise_signal(signal.SIGTERM)\n"
        "print('never')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "first\n")


def test_who_listened_before_is_told_too():
    told = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    flag = StopFlag()
    with flag.listening():
        signal.raise_signal(signal.SIGTERM)
    assert (flag.signum, told) == (signal.SIGTERM, [signal.SIGTERM])


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    flag = StopFlag()
    with flag.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert flag.signum is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_of_the_main_thread_nothing_is_touched():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with StopFlag().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]
