"""The Trainer's flags: what each allows, what each refuses and in which words, and what it does to a run."""

import pytest
import torch

import leyden.core as L
from leyden.core.errors import (
    LeydenError,
    MisconfigurationException,
    NotYetSupported,
    PossibleUserWarning,
)


@pytest.fixture(autouse=True)
def _algorithms(monkeypatch):
    """`deterministic` is a setting of the process."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


ALLOWED = [
    {"accelerator": "auto"},
    {"accelerator": "cpu"},
    {"strategy": "auto"},
    {"strategy": "single_device"},
    {"devices": "auto"},
    {"devices": 1},
    {"devices": "1"},
    {"devices": [0]},
    {"num_nodes": 1},
    {"precision": None},
    {"precision": 32},
    {"precision": "32"},
    {"precision": "32-true"},
    {"max_epochs": 0},
    {"max_epochs": -1},
    {"max_steps": 0},
    {"max_steps": -1},
    {"min_epochs": 0},
    {"min_steps": 3},
    {"limit_train_batches": 0},
    {"limit_train_batches": 0.0},
    {"limit_val_batches": 1.0},
    {"limit_test_batches": 1},
    {"limit_predict_batches": 10**9},
    {"limit_val_batches": None},
    {"val_check_interval": 0.1},
    {"val_check_interval": 1},
    {"val_check_interval": 7},
    {"check_val_every_n_epoch": 3},
    {"check_val_every_n_epoch": None, "val_check_interval": 5},
    {"num_sanity_val_steps": 0},
    {"num_sanity_val_steps": -1},
    {"log_every_n_steps": 0},
    {"log_every_n_steps": 1},
    {"accumulate_grad_batches": 3},
    {"gradient_clip_val": 0.5},
    {"gradient_clip_val": 1, "gradient_clip_algorithm": "value"},
    {"gradient_clip_algorithm": "norm"},
    {"fast_dev_run": 0},
    {"fast_dev_run": True},
    {"deterministic": "warn"},
    {"deterministic": True},
    {"inference_mode": False},
    {"detect_anomaly": True},
]


@pytest.mark.parametrize("flags", ALLOWED, ids=str)
def test_allowed(quiet, flags):
    trainer = quiet(**flags)
    for name, value in flags.items():
        if value is not None and hasattr(trainer.flags, name):
            assert getattr(trainer.flags, name) == value


ENGINE_LATER = [{"strategy": "deepspeed_stage_2"}, {"strategy": "xla"}]


@pytest.mark.parametrize("flags", ENGINE_LATER, ids=str)
def test_what_comes_later_says_so_and_names_what_there_is(quiet, flags):
    (name,) = flags
    with pytest.raises(NotYetSupported, match=rf"`{name}=.*comes with a later version; this one ") as raised:
        quiet(**flags)
    assert isinstance(raised.value, MisconfigurationException)
    assert isinstance(raised.value, NotImplementedError)


WRONG = [
    ({"accelerator": "gpuu"}, r"`accelerator='gpuu'`.*auto, cpu, gpu"),
    ({"accelerator": None}, r"`accelerator=None`.*auto, cpu, gpu"),
    ({"strategy": object()}, r"`strategy=<object.*It must be either a string or an instance"),
    ({"strategy": "dpp"}, r"`strategy='dpp'`.*auto, ddp, .*single_device"),
    ({"strategy": "fsdp_find_unused_parameters_true"}, r"invalid strategy name.*single_device"),
    ({"devices": 0}, r"`Trainer\(devices=0\)` value is not a valid input.*`devices` must ask for at least one device"),
    ({"devices": []}, r"`Trainer\(devices=\[\]\)` value is not a valid input using auto accelerator"),
    ({"devices": "0"}, r"`Trainer\(devices='0'\)` value is not a valid input"),
    ({"num_nodes": 0}, r"`num_nodes` must be a positive integer, but got 0"),
    ({"num_nodes": "two"}, r"`num_nodes`.*but got 'two'"),
    ({"precision": "half"}, r"Precision 'half' is invalid.*16-mixed.*32-true"),
    ({"precision": 12}, r"Precision 12 is invalid"),
    ({"max_epochs": -2}, r"`max_epochs` must be a non-negative integer or -1.*You passed in -2"),
    ({"max_epochs": 2.5}, r"`max_epochs`.*You passed in 2.5"),
    ({"max_epochs": "3"}, r"`max_epochs`.*You passed in '3'"),
    ({"max_epochs": True}, r"`max_epochs`.*You passed in True"),
    ({"max_steps": -2}, r"`max_steps` must be a non-negative integer or -1.*You passed in -2"),
    ({"max_steps": None}, r"`max_steps`.*You passed in None"),
    ({"min_epochs": -1}, r"`min_epochs` must be an int of at least 0. You passed in -1"),
    ({"min_steps": 1.5}, r"`min_steps`.*You passed in 1.5"),
    ({"val_check_interval": 0}, r"`val_check_interval` must be above 0; got 0.*`limit_val_batches=0`"),
    ({"val_check_interval": 0.0}, r"`val_check_interval` must be above 0"),
    ({"val_check_interval": -1}, r"-1 for val_check_interval"),
    ({"val_check_interval": 1.5}, r"1.5 for val_check_interval"),
    ({"val_check_interval": True}, r"True for val_check_interval"),
    ({"check_val_every_n_epoch": 0}, r"`check_val_every_n_epoch` should be an integer .*You passed in 0"),
    ({"check_val_every_n_epoch": 1.0}, r"`check_val_every_n_epoch`.*You passed in 1.0"),
    (
        {"check_val_every_n_epoch": None},
        r"`val_check_interval` should be an integer or a time-based duration.*`check_val_every_n_epoch=None`; got 1.0",
    ),
    ({"num_sanity_val_steps": -2}, r"`num_sanity_val_steps` must be an int of at least -1 .*You passed in -2"),
    ({"num_sanity_val_steps": 0.5}, r"`num_sanity_val_steps`.*You passed in 0.5"),
    ({"log_every_n_steps": -1}, r"`log_every_n_steps` must be an int of at least 0. You passed in -1"),
    ({"log_every_n_steps": "all"}, r"`log_every_n_steps`.*You passed in 'all'"),
    ({"accumulate_grad_batches": 0}, r"`accumulate_grad_batches` must be an int of at least 1. You passed in 0"),
    ({"accumulate_grad_batches": 2.0}, r"`accumulate_grad_batches`.*You passed in 2.0"),
    ({"gradient_clip_val": "1"}, r"`gradient_clip_val` should be an int or a float; got '1'"),
    ({"gradient_clip_algorithm": "nrom"}, r"`gradient_clip_algorithm` nrom is invalid.*\['value', 'norm'\]"),
    ({"fast_dev_run": -1}, r"should be >= 0.*fast_dev_run=-1 is not a valid configuration"),
    ({"fast_dev_run": 1.5}, r"`fast_dev_run`.*You passed in 1.5"),
    ({"fast_dev_run": "yes"}, r"`fast_dev_run`.*You passed in 'yes'"),
    *(
        (
            {f"limit_{kind}_batches": value},
            rf"invalid value {value!r} for limit_{kind}_batches.*\[0.0, 1.0\] or an int",
        )
        for kind in ("train", "val", "test", "predict")
        for value in (-1, 1.5, -0.1, "half", True, float("nan"))
    ),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_refused_in_words_that_name_the_flag(quiet, flags, message):
    with pytest.raises(MisconfigurationException, match=message):
        quiet(**flags)


@pytest.mark.parametrize("flags", [{"max_epochs": "3"}, {"min_steps": 1.5}, {"fast_dev_run": "yes"}], ids=str)
def test_a_flag_of_a_wrong_type_is_a_type_error_too(quiet, flags):
    with pytest.raises(TypeError):
        quiet(**flags)


@pytest.mark.parametrize("flags", [{"max_epochs": -2}, {"accelerator": "x"}, {"precision": "half"}], ids=str)
def test_a_flag_of_a_wrong_value_is_a_value_error_too(quiet, flags):
    with pytest.raises(ValueError):
        quiet(**flags)


def test_a_flag_that_does_not_exist_is_python_s_own_error(quiet):
    with pytest.raises(TypeError, match="max_epoch"):
        quiet(max_epoch=3)
    with pytest.raises(TypeError):
        L.Trainer("cpu")


# -- how long ----------------------------------------------------------------------------------------------------------


def test_without_any_limit_there_are_a_thousand_epochs_and_a_warning(quiet, tiny, numbers):
    trainer = quiet(max_epochs=None, callbacks=Stop(1))
    assert trainer.max_epochs is None
    with pytest.warns(PossibleUserWarning, match=r"LY-T001.*`max_epochs` was not set. Setting it to 1000 epochs"):
        trainer.fit(tiny(), numbers())
    assert trainer.max_epochs == 1000


def test_a_timer_is_a_limit_too(quiet, tiny, numbers):
    trainer = quiet(max_epochs=None, max_time="1h", callbacks=Stop(1))
    trainer.fit(tiny(), numbers())
    assert trainer.max_epochs == -1


@pytest.mark.parametrize(
    ("flags", "epochs", "steps"),
    [
        ({"max_epochs": 3}, 3, 12),
        ({"max_epochs": 0}, 0, 0),
        ({"max_epochs": 3, "max_steps": 5}, 2, 5),
        ({"max_epochs": 1, "max_steps": 5}, 1, 4),
        ({"max_epochs": None, "max_steps": 5}, 2, 5),
        ({"max_epochs": -1, "max_steps": 8}, 2, 8),
        ({"max_epochs": 3, "max_steps": 0}, 0, 0),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 3, 6),
        ({"max_epochs": 3, "max_steps": 3, "accumulate_grad_batches": 3}, 2, 3),
        ({"max_epochs": 2, "limit_train_batches": 3}, 2, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 2, 4),
        ({"max_epochs": 2, "limit_train_batches": 0.99}, 2, 6),
        ({"max_epochs": 2, "limit_train_batches": 100}, 2, 8),
        ({"max_epochs": 2, "limit_train_batches": 4.0}, 2, 8),
        ({"max_epochs": 2, "limit_train_batches": 0}, 0, 0),
    ],
    ids=str,
)
def test_epochs_and_steps(quiet, tiny, numbers, flags, epochs, steps):
    trainer = quiet(**flags)
    trainer.fit(tiny(), numbers())
    assert (trainer.current_epoch, trainer.global_step) == (epochs, steps)
    assert trainer.state.finished


class Stop(L.Callback):
    """Asks for the end after a number of batches, once."""

    def __init__(self, after):
        self.after, self.seen = after, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.after:
            trainer.should_stop = True


@pytest.mark.parametrize(
    ("flags", "batches"),
    [
        ({}, 2),
        ({"min_steps": 1}, 4),
        ({"min_steps": 3}, 4),
        ({"min_epochs": 1}, 4),
        ({"min_epochs": 2}, 8),
        ({"min_epochs": 2, "min_steps": 10}, 10),
        ({"min_steps": 9, "max_steps": 6}, 6),
        ({"min_epochs": 9, "max_epochs": 2}, 8),
        ({"min_steps": 3, "accumulate_grad_batches": 2}, 6),
    ],
    ids=str,
)
def test_a_stop_waits_for_the_smallest_numbers_of_epochs_and_steps(quiet, tiny, numbers, flags, batches):
    stop = Stop(2)
    quiet(**{"max_epochs": 5, **flags}, callbacks=stop).fit(tiny(), numbers())
    assert stop.seen == batches


def test_a_fit_begins_without_the_stop_of_the_one_before(quiet, tiny, numbers):
    trainer, model = quiet(max_epochs=2, callbacks=Stop(2)), tiny()
    trainer.fit(model, numbers())
    assert trainer.global_step == 2
    trainer.fit(model, numbers())
    assert trainer.current_epoch == 2


# -- how much ----------------------------------------------------------------------------------------------------------


class Counting(L.Callback):
    def __init__(self):
        self.train = self.val = self.test = self.predict = self.sanity = 0

    def on_train_batch_end(self, trainer, *args):
        self.train += 1

    def on_validation_batch_end(self, trainer, *args, **kwargs):
        if trainer.sanity_checking:
            self.sanity += 1
        else:
            self.val += 1

    def on_test_batch_end(self, *args, **kwargs):
        self.test += 1

    def on_predict_batch_end(self, *args, **kwargs):
        self.predict += 1


@pytest.fixture
def everything(tiny):
    class Everything(tiny):
        def validation_step(self, batch, batch_idx): ...

        def test_step(self, batch, batch_idx): ...

        def predict_step(self, batch, batch_idx): ...

    return Everything()


@pytest.mark.parametrize(
    ("limit", "count"), [(None, 4), (2, 2), (0.5, 2), (0.75, 3), (0, 0), (0.0, 0), (1.0, 4), (1, 1)]
)
def test_limits_hold_for_every_verb(quiet, everything, numbers, limit, count):
    counting = Counting()
    limits = {f"limit_{kind}_batches": limit for kind in ("train", "val", "test", "predict")}
    trainer = quiet(callbacks=counting, num_sanity_val_steps=0, **limits)
    trainer.fit(everything, numbers(), numbers())
    assert (counting.train, counting.val) == (count, count if count else 0)
    trainer.validate(everything, numbers(), verbose=False)
    trainer.test(everything, numbers(), verbose=False)
    trainer.predict(everything, numbers())
    assert (counting.val, counting.test, counting.predict) == (2 * count, count, count)


def test_a_share_that_leaves_nothing_is_refused_with_the_least_that_would(quiet, tiny, numbers):
    with pytest.raises(MisconfigurationException, match=r"0\.1 \* 4 < 1.*`limit_train_batches=0\.25`"):
        quiet(limit_train_batches=0.1).fit(tiny(), numbers())


def test_a_share_of_an_unknown_number_is_refused(quiet, tiny, numbers):
    def endless():
        yield from numbers()

    with pytest.raises(
        MisconfigurationException, match=r"`Trainer\(limit_train_batches\)` must be `1.0` or an int.*got 0.5"
    ):
        quiet(limit_train_batches=0.5).fit(tiny(), endless())


@pytest.mark.parametrize(("steps", "count"), [(0, 0), (2, 2), (9, 4), (-1, 4)])
def test_the_sanity_check_takes_a_few_batches(quiet, everything, numbers, steps, count):
    counting = Counting()
    quiet(callbacks=counting, num_sanity_val_steps=steps).fit(everything, numbers(), numbers())
    assert (counting.sanity, counting.val) == (count, 4)


@pytest.mark.parametrize(("run", "count"), [(True, 1), (1, 1), (3, 3)])
def test_a_fast_run_tries_everything_and_leaves_nothing(tmp_path, everything, numbers, run, count):
    counting = Counting()
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "files")
    stopper = L.callbacks.EarlyStopping("nothing that is logged")
    trainer = L.Trainer(
        fast_dev_run=run,
        default_root_dir=tmp_path,
        max_epochs=9,
        limit_train_batches=2,
        logger=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[counting, saver, stopper],
    )
    trainer.fit(everything, numbers(), numbers())
    trainer.test(everything, numbers(), verbose=False)
    assert (counting.train, counting.val, counting.sanity, counting.test) == (count, count, 0, count)
    assert (trainer.max_epochs, trainer.max_steps, trainer.current_epoch) == (1, count, 1)
    assert list(tmp_path.iterdir()) == []


# -- when validation runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "after"),
    [
        ({}, [4, 8, 12]),
        ({"val_check_interval": 0.5}, [2, 4, 6, 8, 10, 12]),
        ({"val_check_interval": 0.25}, list(range(1, 13))),
        ({"val_check_interval": 0.3}, list(range(1, 13))),
        ({"val_check_interval": 0.75}, [3, 7, 11]),
        ({"val_check_interval": 1}, list(range(1, 13))),
        ({"val_check_interval": 3}, [3, 7, 11]),
        ({"val_check_interval": 4}, [4, 8, 12]),
        ({"val_check_interval": 4.0}, [4, 8, 12]),
        ({"check_val_every_n_epoch": 2}, [8]),
        ({"check_val_every_n_epoch": 2, "val_check_interval": 2}, [6, 8]),
        ({"check_val_every_n_epoch": None, "val_check_interval": 5}, [5, 10]),
        ({"check_val_every_n_epoch": None, "val_check_interval": 12}, [12]),
        ({"max_steps": 6, "val_check_interval": 4}, [4]),
        ({"limit_val_batches": 0}, []),
    ],
    ids=str,
)
def test_validation_runs_when_it_is_due(quiet, everything, numbers, flags, after):
    seen = []

    class Noting(L.Callback):
        batches = 0

        def on_train_batch_end(self, *args):
            self.batches += 1

        def on_validation_start(self, trainer, pl_module):
            seen.append(self.batches)

    trainer = quiet(**{"max_epochs": 3, **flags}, num_sanity_val_steps=0, callbacks=Noting())
    trainer.fit(everything, numbers(), numbers(2))
    assert seen == after


def test_an_interval_longer_than_the_epoch_is_refused(quiet, everything, numbers):
    message = r"`val_check_interval` \(5\) must be less than or equal to the number of the training batches \(4\)"
    with pytest.raises(MisconfigurationException, match=message):
        quiet(val_check_interval=5).fit(everything, numbers(), numbers())


def test_data_without_a_length_are_validated_at_their_end_or_every_so_many_batches(quiet, everything, numbers):
    class Unsized:
        def __iter__(self):
            return iter(numbers())

    for interval, times in ((1.0, 1), (2, 2)):
        counting = Counting()
        quiet(val_check_interval=interval, callbacks=counting).fit(everything, Unsized(), numbers(2))
        assert counting.val == times
    with pytest.raises(MisconfigurationException, match=r"must be time based, `1\.0` or an int.*got 0\.5"):
        quiet(val_check_interval=0.5).fit(everything, Unsized(), numbers(2))


def test_every_error_of_a_flag_is_one_of_ours(quiet):
    for flags, _ in WRONG:
        with pytest.raises(LeydenError):
            quiet(**flags)
