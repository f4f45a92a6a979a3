"""The rule of when validation is due, batch by batch."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import MisconfigurationException, MisconfigurationValueError
from leyden.core.progress import Progress
from leyden.core.val_check import make_val_check


def due(rule, *, epochs, length, stopping_at=None):
    """The batches, counted over the run from 1, after which validation is due."""
    found, batches = [], 0
    for epoch in range(epochs):
        for batch in range(1, length + 1):
            batches += 1
            progress = Progress(epoch=epoch, batch=batch, batches=batches, is_last_batch=batch == length)
            if rule.due(progress, stopping=batches == stopping_at):
                found.append(batches)
    return found


@pytest.mark.parametrize(
    ("interval", "every", "expected"),
    [
        (1.0, 1, [10, 20, 30, 40]),
        (0.5, 1, [5, 10, 15, 20, 25, 30, 35, 40]),
        (0.3, 1, [3, 6, 9, 13, 16, 19, 23, 26, 29, 33, 36, 39]),
        (4, 1, [4, 8, 14, 18, 24, 28, 34, 38]),
        (10, 1, [10, 20, 30, 40]),
        (1.0, 3, [30]),
        (5, 2, [15, 20, 35, 40]),
        (7, None, [7, 14, 21, 28, 35]),
        (15, None, [15, 30]),
    ],
)
def test_sized_data(interval, every, expected):
    assert due(make_val_check(interval, every, 10), epochs=4, length=10) == expected


@pytest.mark.parametrize(
    ("interval", "every", "expected"), [(1.0, 1, [10, 20]), (4, 1, [4, 8, 14, 18]), (7, None, [7, 14]), (1.0, 2, [20])]
)
def test_data_without_a_length(interval, every, expected):
    assert due(make_val_check(interval, every, None), epochs=2, length=10) == expected


def test_a_stop_validates_at_once_but_only_in_an_epoch_that_validates():
    assert due(make_val_check(1.0, 1, 10), epochs=2, length=10, stopping_at=13) == [10, 13, 20]
    assert due(make_val_check(1.0, 2, 10), epochs=2, length=10, stopping_at=3) == [20]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_share_below_one_batch_is_every_batch(length):
    assert due(make_val_check(0.01, 1, length), epochs=1, length=length) == list(range(1, length + 1))


def test_an_interval_that_no_epoch_reaches_is_refused_with_the_way_out():
    with pytest.raises(MisconfigurationValueError, match=r"\(11\).*batches \(10\).*`check_val_every_n_epoch=None`"):
        make_val_check(11, 1, 10)
    assert make_val_check(11, None, 10).every_batches == 11


@pytest.mark.parametrize("interval", [0.5, 0.0, 0.999])
def test_a_share_of_an_unknown_length_is_refused(interval):
    with pytest.raises(MisconfigurationException, match=r"IterableDataset.*must be time based, `1\.0` or an int"):
        make_val_check(interval, 1, None)


@given(length=st.integers(1, 60), interval=st.integers(1, 60), epochs=st.integers(1, 4))
def test_a_number_of_batches_counts_within_the_epoch_or_over_all(length, interval, epochs):
    over_all = make_val_check(interval, None, length)
    assert due(over_all, epochs=epochs, length=length) == list(range(interval, length * epochs + 1, interval))
    if interval <= length:
        within = due(make_val_check(interval, 1, length), epochs=epochs, length=length)
        assert within == [e * length + b for e in range(epochs) for b in range(interval, length + 1, interval)]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 0.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


def batch(number, **more):
    return Progress(batch=number, batches=number, **more)


def test_a_time_counts_from_the_beginning_and_from_the_end_of_each_validation(clock):
    rule = make_val_check(timedelta(seconds=10), None, 100)
    clock.now = 9.0
    assert not rule.due(batch(1), stopping=False)
    clock.now = 10.0
    assert rule.due(batch(2), stopping=False)
    clock.now = 19.0
    rule.validated()
    clock.now = 28.0
    assert not rule.due(batch(3), stopping=False)
    clock.now = 29.0
    assert rule.due(batch(4), stopping=False)


def test_a_time_waits_for_its_epoch_and_the_end_of_an_epoch_does_not_matter(clock):
    rule = make_val_check(timedelta(seconds=10), 2, None)
    clock.now = 50.0
    assert not rule.due(batch(1, epoch=0, is_last_batch=True), stopping=False)
    assert rule.due(batch(2, epoch=1), stopping=False)
    assert not rule.due(batch(3, epoch=1, is_last_batch=True), stopping=False)
    assert rule.due(batch(4, epoch=1), stopping=True)
