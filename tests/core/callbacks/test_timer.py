"""Timer: seconds per stage, and the end of a training whose time is over."""

import logging
from datetime import timedelta

import pytest

from leyden.core.callbacks import Timer
from leyden.core.errors import MisconfigurationException


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second whenever a training step runs."""

    class Clock:
        now = 100.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def slow(tiny, clock):
    class Slow(tiny):
        def training_step(self, batch, batch_idx):
            clock.now += 1
            return super().training_step(batch, batch_idx)

    return Slow


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("01:02:03:04", 93784), (timedelta(minutes=2), 120), ({"hours": 1, "seconds": 5}, 3605), (None, None)],
)
def test_durations(duration, seconds):
    assert Timer(duration).time_remaining() == seconds


@pytest.mark.parametrize("duration", ["12 hours", "1:2:3:4", 60, {"fortnights": 1}])
def test_a_wrong_duration_is_refused(duration):
    with pytest.raises(MisconfigurationException, match=r"Timer\(duration="):
        Timer(duration)


def test_a_wrong_interval_and_a_wrong_stage_are_refused():
    with pytest.raises(MisconfigurationException, match="Possible choices are: step, epoch"):
        Timer(interval="batch")
    with pytest.raises(ValueError, match="training"):
        Timer().time_elapsed("training")


def test_every_stage_is_measured(quiet, slow, numbers, clock):
    class Validated(slow):
        def validation_step(self, batch, batch_idx):
            clock.now += 10

    timer = Timer()
    trainer = quiet(callbacks=timer, max_epochs=2, num_sanity_val_steps=0)
    trainer.fit(Validated(), numbers(8), numbers(2))
    assert timer.time_elapsed() == 2 * (4 + 10)
    assert timer.time_elapsed("validate") == 10
    assert timer.end_time() - timer.start_time() == 28
    assert timer.start_time("test") is None
    assert timer.time_elapsed("test") == 0


@pytest.mark.parametrize(("interval", "steps"), [("step", 6), ("epoch", 8)])
def test_training_ends_when_its_time_is_over(quiet, slow, numbers, capsys, interval, steps):
    trainer = quiet(callbacks=Timer("00:00:00:06", interval), max_epochs=5)
    trainer.fit(slow(), numbers(8))
    assert trainer.global_step == steps
    assert f"Elapsed time is 0:00:0{steps}" in capsys.readouterr().err


def test_a_program_that_reads_the_log_finds_the_end_there(quiet, slow, numbers, caplog, capsys):
    with caplog.at_level(logging.INFO):
        quiet(callbacks=Timer("00:00:00:02"), max_epochs=5).fit(slow(), numbers(8))
    assert "Time limit reached." in caplog.text
    assert "Signaling Trainer to stop." in caplog.text
    assert "Time limit" not in capsys.readouterr().err


def test_a_resumed_run_counts_the_seconds_before(quiet, slow, numbers, tmp_path, clock):
    path = tmp_path / "timed.ckpt"
    trainer = quiet(callbacks=Timer(), max_epochs=1)
    trainer.fit(slow(), numbers(8))
    trainer.save_checkpoint(path)
    clock.now += 1000
    timer = Timer({"seconds": 6}, verbose=False)
    trainer = quiet(callbacks=timer, max_epochs=5)
    trainer.fit(slow(), numbers(8), ckpt_path=path)
    assert trainer.global_step == 6
    assert timer.time_elapsed() == 6


def test_the_same_timer_does_not_count_twice(quiet, slow, numbers, tmp_path):
    timer = Timer()
    trainer = quiet(callbacks=timer, max_epochs=1)
    trainer.fit(slow(), numbers(8))
    trainer.save_checkpoint(tmp_path / "timed.ckpt")
    timer.load_state_dict(timer.state_dict())
    assert timer.time_elapsed() == 4
