"""Durations: how long and how often as a number with its unit, wherever a flag counts."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import leyden.core as L
from leyden.core.duration import Duration
from leyden.core.errors import MisconfigurationException, MisconfigurationTypeError, MisconfigurationValueError

READ = [
    ("10ep", 10, "ep"),
    ("0.25ep", 0.25, "ep"),
    (".5 ep", 0.5, "ep"),
    ("500ba", 500, "ba"),
    ("3.0ba", 3, "ba"),
    (" 7st ", 7, "st"),
    ("90s", 90.0, "s"),
    ("1.5min", 90.0, "s"),
    ("12h", 43200.0, "s"),
    ("2d", 172800.0, "s"),
    ("01:02:03:04", 93784.0, "s"),
    (timedelta(minutes=2), 120.0, "s"),
    ({"hours": 1, "seconds": 1}, 3601.0, "s"),
]


@pytest.mark.parametrize(("given", "value", "unit"), READ, ids=str)
def test_what_is_read(given, value, unit):
    duration = Duration.parse(given)
    assert (duration.value, duration.unit) == (value, unit)
    assert duration.time == (timedelta(seconds=value) if unit == "s" else None)


@pytest.mark.parametrize("given", ["10", "ep", "-1ep", "1e3ba", "10 epochs", "1:2:3", "0.5ba", "1.5st", "a:b:c:d", ""])
def test_what_is_no_duration_names_what_was_set(given):
    with pytest.raises(MisconfigurationValueError, match=r"`some_flag`"):
        Duration.parse(given, "some_flag")


@pytest.mark.parametrize("given", [3, 0.5, None, {"hour": 1}, ["1h"]])
def test_what_has_another_type_is_a_type_error(given):
    with pytest.raises(MisconfigurationTypeError, match=r"`some_flag`"):
        Duration.parse(given, "some_flag")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=90)))
def test_a_time_means_the_same_in_every_form(time):
    time -= timedelta(microseconds=time.microseconds)
    hours, seconds = divmod(time.seconds, 3600)
    text = f"{time.days:02}:{hours:02}:{seconds // 60:02}:{seconds % 60:02}"
    forms = [time, text, {"seconds": time.total_seconds()}, f"{int(time.total_seconds())}s"]
    assert {Duration.parse(form) for form in forms} == {Duration(time.total_seconds(), "s")}


FLAGS = [
    ({"max_epochs": "10ep"}, 10),
    ({"min_epochs": "2ep"}, 2),
    ({"max_steps": "500st"}, 500),
    ({"min_steps": "5st"}, 5),
    ({"limit_train_batches": "10ba"}, 10),
    ({"limit_val_batches": "0.5ep"}, 0.5),
    ({"limit_test_batches": "1ep"}, 1.0),
    ({"limit_predict_batches": "1ba"}, 1),
    ({"overfit_batches": "3ba"}, 3),
    ({"val_check_interval": "0.25ep"}, 0.25),
    ({"val_check_interval": "500ba"}, 500),
    ({"val_check_interval": "10min"}, timedelta(minutes=10)),
    ({"val_check_interval": "00:00:10:00"}, timedelta(minutes=10)),
    ({"val_check_interval": {"minutes": 10}}, timedelta(minutes=10)),
    ({"check_val_every_n_epoch": "2ep"}, 2),
    ({"log_every_n_steps": "5st"}, 5),
    ({"accumulate_grad_batches": "4ba"}, 4),
    ({"num_sanity_val_steps": "3ba"}, 3),
    ({"reload_dataloaders_every_n_epochs": "2ep"}, 2),
]


@pytest.mark.parametrize(("flags", "number"), FLAGS, ids=str)
def test_a_flag_holds_the_number(quiet, flags, number):
    (name,) = flags
    value = getattr(quiet(**flags), name)
    assert value == number
    assert type(value) is type(number)


WRONG = [
    ({"max_epochs": "12h"}, r"`max_epochs` counts epochs.*'12h', which counts seconds; `max_time` takes them"),
    ({"max_epochs": "500st"}, r"`max_epochs` counts epochs.*'500st'.*`max_steps` takes them"),
    ({"max_epochs": "500ba"}, r"`max_epochs` counts epochs.*which counts batches"),
    ({"max_epochs": "0.5ep"}, r"`max_epochs` counts whole epochs; got '0.5ep'"),
    ({"max_steps": "2ep"}, r"`max_steps` counts optimiser steps.*`max_epochs` takes them"),
    ({"min_steps": "3ba"}, r"`min_steps` counts optimiser steps.*which counts batches"),
    ({"max_time": "3ep"}, r"`max_time` is a time, such as '12h'; got '3ep', which counts epochs"),
    ({"max_time": "3"}, r"Invalid time format for `max_time`: '3' is not a valid duration.*DD:HH:MM:SS"),
    ({"limit_val_batches": "10st"}, r"`limit_val_batches` takes a part of an epoch.*counts optimiser steps"),
    ({"limit_val_batches": "1h"}, r"`limit_val_batches` takes a part of an epoch.*counts seconds"),
    ({"limit_val_batches": "2ep"}, r"`limit_val_batches` takes a part of an epoch, up to '1ep'; got '2ep'"),
    ({"val_check_interval": "2ep"}, r"up to '1ep'; got '2ep'.*`check_val_every_n_epoch=n`"),
    ({"val_check_interval": "5st"}, r"`val_check_interval` takes.*counts optimiser steps"),
    ({"val_check_interval": "01:00"}, r"Invalid time format for `val_check_interval`: '01:00'"),
    ({"val_check_interval": "aa:00:00:01"}, r"Non-integer component in `val_check_interval` string"),
    ({"val_check_interval": {"fortnights": 1}}, r"`val_check_interval` must hold arguments of `datetime.timedelta`"),
    ({"val_check_interval": "0s"}, r"`val_check_interval` must be above 0"),
    ({"check_val_every_n_epoch": "1h"}, r"`check_val_every_n_epoch` counts epochs"),
    ({"accumulate_grad_batches": "4st"}, r"`accumulate_grad_batches` counts batches"),
    ({"log_every_n_steps": "1.5st"}, r"`log_every_n_steps` can not be a part of optimiser steps"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_a_unit_that_does_not_fit_is_named(quiet, flags, message):
    with pytest.raises(MisconfigurationException, match=message):
        quiet(**flags)


def test_a_run_ends_by_what_the_texts_say(quiet, tiny, numbers):
    trainer = quiet(max_epochs="3ep", limit_train_batches="2ba", accumulate_grad_batches="2ba")
    trainer.fit(tiny(), numbers())
    assert (trainer.current_epoch, trainer.global_step) == (3, 3)


def test_a_text_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "4ep")
    monkeypatch.setenv("LEYDEN_TRAINER_VAL_CHECK_INTERVAL", "00:00:05:00")
    trainer = L.Trainer(logger=False)
    assert (trainer.max_epochs, trainer.val_check_interval) == (4, timedelta(minutes=5))


def test_the_time_is_over(quiet, tiny, numbers):
    trainer = quiet(max_epochs=-1, max_time="0s")
    trainer.fit(tiny(), numbers())
    assert trainer.global_step <= 1


@pytest.mark.parametrize("interval", ["2s", "00:00:00:02", timedelta(seconds=2), {"seconds": 2}], ids=str)
def test_validation_runs_when_its_time_has_come(quiet, tiny, numbers, monkeypatch, interval):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    after = []

    class Validated(tiny):
        def training_step(self, batch, batch_idx):
            now[0] += 0.5
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx): ...

        def on_validation_start(self):
            after.append(now[0])

    trainer = quiet(max_epochs=3, val_check_interval=interval, check_val_every_n_epoch=None, num_sanity_val_steps=0)
    trainer.fit(Validated(), numbers(12), numbers(2))
    assert after == [2.0, 4.0, 6.0, 8.0]
