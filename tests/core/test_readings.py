"""What user code reads off a trainer: place, data, counters, loops; and what it may set."""

import signal

import pytest
import torch
from torch.utils.data import IterableDataset

import leyden.core as L
from leyden.core.accelerators import CPUAccelerator
from leyden.core.errors import MisconfigurationException, NotYetSupported
from leyden.core.plugins import Precision
from leyden.core.strategies import SingleDeviceStrategy


@pytest.fixture
def full(tiny):
    class Full(tiny):
        def validation_step(self, batch, batch_idx): ...

        def test_step(self, batch, batch_idx): ...

        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return batch[0]

    return Full


# -- the place ---------------------------------------------------------------------------------------------------------


def test_one_process_on_one_cpu(quiet):
    trainer = quiet()
    assert isinstance(trainer.strategy, SingleDeviceStrategy)
    assert isinstance(trainer.accelerator, CPUAccelerator)
    assert isinstance(trainer.precision_plugin, Precision)
    assert (trainer.precision, trainer.scaler, trainer.distributed_sampler_kwargs) == ("32-true", None, None)
    assert (trainer.num_devices, trainer.device_ids, trainer.num_nodes, trainer.world_size) == (1, [0], 1, 1)
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.is_global_zero) == (0, 0, 0, True)


def test_the_parts_can_be_given_as_objects(quiet):
    accelerator, precision, strategy = CPUAccelerator(), Precision(), SingleDeviceStrategy(device="cpu")
    assert quiet(accelerator=accelerator).accelerator is accelerator
    assert quiet(plugins=[precision]).precision_plugin is precision
    assert quiet(strategy=strategy, plugins=precision).strategy is strategy
    assert strategy.precision_plugin is precision


class Saving:
    def save_checkpoint(self): ...

    def load_checkpoint(self): ...


@pytest.mark.parametrize(
    ("flags", "kind", "message"),
    [
        ({"plugins": [Precision(), Precision()]}, MisconfigurationException, "multiple values for Precision flags"),
        ({"plugins": Precision(), "precision": 32}, ValueError, r"Received both `precision=32` and `plugins="),
        ({"plugins": "ddp"}, MisconfigurationException, "Found invalid type for plugin ddp"),
        ({"plugins": [Saving()]}, NotYetSupported, "of the kind CheckpointIO, comes with a later version"),
        (
            {"strategy": SingleDeviceStrategy(accelerator=CPUAccelerator()), "accelerator": "cpu"},
            MisconfigurationException,
            "accelerator set through both strategy class and accelerator flag",
        ),
        (
            {"strategy": SingleDeviceStrategy(precision_plugin=Precision()), "plugins": Precision()},
            MisconfigurationException,
            "precision set through both strategy class and plugins",
        ),
    ],
)
def test_parts_that_contradict_each_other(quiet, flags, kind, message):
    with pytest.raises(kind, match=message):
        quiet(**flags)


@pytest.mark.parametrize("devices", [-1, "-1", 1.5, "abc", None, [0], [0, 1]])
def test_a_cpu_takes_a_number_of_processes(quiet, devices):
    with pytest.raises(TypeError, match="`devices` selected with `CPUAccelerator` should be an int > 0"):
        quiet(accelerator="cpu", devices=devices)


def test_modules_are_made_in_place(quiet):
    trainer = quiet()
    with trainer.init_module():
        filled = torch.nn.Linear(300, 1)
    assert 0 < filled.weight.abs().max() <= 300**-0.5
    torch.manual_seed(0)
    with trainer.init_module(empty_init=True):
        torch.nn.Linear(3, 3)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == drawn, "nothing was drawn for the parameters"


# -- the data ----------------------------------------------------------------------------------------------------------


def test_loaders_and_their_numbers_of_batches(quiet, tiny, full, numbers):
    trainer = quiet(limit_val_batches=2, limit_test_batches=3, limit_predict_batches=1, num_sanity_val_steps=-1)
    train, val, test = numbers(), numbers(), [numbers(), numbers(4)]
    seen = {}

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            seen["loaders"] = trainer.train_dataloader is train and trainer.val_dataloaders is val
            seen["validates"], seen["every"] = trainer.enable_validation, trainer.val_check_batch

    trainer.callbacks.append(Look())
    trainer.fit(full(), train, val)
    assert seen == {"loaders": True, "validates": True, "every": 4}
    assert (trainer.num_training_batches, trainer.num_val_batches, trainer.num_sanity_val_batches) == (4, [2], [2])

    class Two(tiny):
        def test_step(self, batch, batch_idx, dataloader_idx=0): ...

    trainer.test(Two(), test, verbose=False)
    assert trainer.test_dataloaders == test
    assert trainer.num_test_batches == trainer.test_loop.max_batches == [3, 2]
    trainer.predict(full(), val)
    assert trainer.predict_dataloaders is val
    assert (trainer.num_predict_batches, trainer.predict_loop.num_dataloaders) == ([1], 1)
    trainer.validate(full(), val, verbose=False)
    assert (trainer.val_dataloaders is val, trainer.validate_loop.max_batches) == (True, [2])


def test_without_batches_a_verb_gives_nothing(quiet, full, numbers):
    trainer = quiet(limit_val_batches=0, limit_test_batches=0.0, limit_predict_batches=0)
    assert trainer.validate(full(), numbers()) == trainer.test(full(), numbers()) == []
    assert trainer.predict(full(), numbers()) is None


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(1)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"max_epochs": 1}, 4),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": None, "max_steps": 5}, 5),
        ({"max_epochs": -1}, float("inf")),
        ({"max_epochs": -1, "max_steps": 9}, 9),
        ({"max_epochs": 0}, 4),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": 4, "callbacks": L.callbacks.GradientAccumulationScheduler({0: 4, 1: 2, 3: 1})}, 9),
    ],
    ids=str,
)
def test_the_number_of_steps_is_known_before_training(quiet, tiny, numbers, flags, expected):
    estimated = []

    class Asking(tiny):
        def configure_optimizers(self):
            estimated.append(self.trainer.estimated_stepping_batches)
            raise KeyError

    with pytest.raises(KeyError):
        quiet(**flags).fit(Asking(), numbers())
    assert estimated == [expected]


def test_the_number_of_steps_is_what_is_trained(quiet, tiny, numbers):
    schedule = L.callbacks.GradientAccumulationScheduler({0: 4, 1: 2, 3: 1})
    trainer = quiet(max_epochs=4, callbacks=schedule)
    trainer.fit(tiny(), numbers())
    assert trainer.global_step == trainer.estimated_stepping_batches == 9


def test_steps_on_data_without_a_length(quiet, tiny):
    for flags, expected in (({"max_steps": 3}, 3), ({"max_epochs": 3}, -1)):
        estimated = []

        class Asking(tiny):
            def configure_optimizers(self, estimated=estimated):
                estimated.append(self.trainer.estimated_stepping_batches)
                raise KeyError

        with pytest.raises(KeyError):
            quiet(**flags).fit(Asking(), torch.utils.data.DataLoader(Endless()))
        assert estimated == [expected]


# -- the loops ---------------------------------------------------------------------------------------------------------


def test_the_counters_of_a_batch_at_every_moment(quiet, full, numbers):
    seen = []

    class Look(L.Callback):
        def look(self, trainer, moment):
            loop = trainer.fit_loop
            counts = loop.epoch_loop.batch_progress.current
            seen.append((moment, loop.batch_idx, counts.ready, counts.processed, counts.completed))

        def on_train_batch_start(self, trainer, *args):
            self.look(trainer, "start")

        def on_before_optimizer_step(self, trainer, *args):
            self.look(trainer, "step")

        def on_train_batch_end(self, trainer, *args):
            self.look(trainer, "end")

        def on_validation_end(self, trainer, *args):
            self.look(trainer, "validated")

    trainer = quiet(callbacks=Look(), limit_train_batches=2, num_sanity_val_steps=0)
    trainer.fit(full(), numbers(), numbers(2))
    assert seen == [
        ("start", 0, 1, 0, 0),
        ("step", 0, 1, 0, 0),
        ("end", 0, 1, 1, 0),
        ("start", 1, 2, 1, 1),
        ("step", 1, 2, 1, 1),
        ("end", 1, 2, 2, 1),
        ("validated", 1, 2, 2, 2),
    ]
    loop = trainer.fit_loop
    assert loop.total_batch_idx == loop.epoch_loop.total_batch_idx == 1
    assert (loop.epoch_loop.global_step, loop.epoch_loop._batches_that_stepped, loop.max_batches) == (2, 2, 2)
    assert loop.epoch_progress.current.processed == loop.epoch_progress.total.completed == 1


def test_raising_the_limits_lets_the_same_model_go_on(quiet, tiny, numbers):
    trainer, model = quiet(max_epochs=1), tiny()
    trainer.fit(model, numbers())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, numbers())
    assert (trainer.max_epochs, trainer.current_epoch, trainer.global_step) == (3, 3, 12)
    trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, 14
    trainer.fit(model, numbers())
    assert (trainer.max_steps, trainer.fit_loop.max_steps, trainer.global_step) == (14, 14, 14)


def test_the_least_numbers_can_be_raised_too(quiet):
    trainer = quiet()
    trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = 2, 5
    assert (
        (trainer.min_epochs, trainer.min_steps) == (trainer.fit_loop.min_epochs, trainer.fit_loop.min_steps) == (2, 5)
    )


def test_the_state_of_a_loop_is_that_of_a_checkpoint(quiet, tiny, numbers, tmp_path):
    trainer = quiet()
    trainer.fit(tiny(), numbers())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert trainer.fit_loop.state_dict() == saved
    assert trainer.fit_loop.epoch_loop.state_dict()["batch_progress"] == saved["epoch_loop.batch_progress"]


def test_counters_can_be_set_by_who_goes_on_from_elsewhere(quiet):
    trainer = quiet()
    trainer.fit_loop.epoch_progress.current.completed = 4
    trainer.fit_loop.epoch_loop._batches_that_stepped = 7
    assert (trainer.current_epoch, trainer.fit_loop.epoch_loop._batches_that_stepped) == (4, 7)
    with pytest.raises(AttributeError, match="ready, started, processed and completed"):
        _ = trainer.fit_loop.epoch_progress.current.finished


# -- what may be set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit_train_batches", 3),
        ("limit_val_batches", 0.5),
        ("overfit_batches", 2),
        ("val_check_interval", 5),
        ("check_val_every_n_epoch", 2),
        ("num_sanity_val_steps", 7),
        ("num_sanity_val_steps", float("inf")),
        ("log_every_n_steps", 3),
        ("accumulate_grad_batches", 4),
        ("gradient_clip_val", 1.0),
        ("reload_dataloaders_every_n_epochs", 2),
        ("should_stop", True),
        ("training", True),
        ("sanity_checking", True),
        ("ckpt_path", "some.ckpt"),
    ],
)
def test_what_may_be_set(quiet, name, value):
    trainer = quiet()
    setattr(trainer, name, value)
    assert getattr(trainer, name) == value


@pytest.mark.parametrize("name", ["max_epochs", "min_epochs", "max_steps", "min_steps"])
def test_limits_are_set_on_the_loops(quiet, name):
    with pytest.raises(AttributeError, match=rf"set `trainer.fit_loop.{name}`"):
        setattr(quiet(), name, 1)


def test_a_limit_that_is_set_counts(quiet, tiny, numbers):
    trainer = quiet()
    trainer.limit_train_batches = 2
    trainer.fit(tiny(), numbers())
    assert trainer.global_step == 2


def test_a_stage_is_left_only_if_it_is_the_one(quiet):
    trainer = quiet()
    trainer.testing = True
    trainer.training = False
    assert trainer.testing
    trainer.testing = False
    assert trainer.state.stage is None


def test_loggers_can_be_exchanged(quiet, tmp_path):
    trainer, logger = quiet(), L.loggers.CSVLogger(tmp_path)
    trainer.logger = logger
    assert (trainer.logger, trainer.loggers) == (logger, [logger])
    trainer.loggers = None
    assert (trainer.logger, trainer.loggers) == (None, [])


def test_a_checkpoint_that_is_set_is_loaded_by_every_call(quiet, full, numbers, tmp_path):
    saver = quiet()
    saver.fit(full(), numbers(), numbers())
    saver.save_checkpoint(tmp_path / "kept.ckpt")
    weight = saver.lightning_module.weight.item()
    trainer = quiet(max_epochs=2)
    trainer.ckpt_path = tmp_path / "kept.ckpt"
    for _ in range(2):
        model = full()
        trainer.test(model, numbers(), verbose=False)
        assert model.weight.item() == weight != 1.0
    trainer.fit(full(), numbers(), numbers())
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)
    trainer.ckpt_path = None
    model = full()
    trainer.test(model, numbers(), verbose=False)
    assert (model.weight.item(), trainer.ckpt_path) == (1.0, None)


# -- how a call ended --------------------------------------------------------------------------------------------------


def test_a_call_that_failed_is_told_from_one_that_ended(quiet, tiny, numbers):
    class Failing(tiny):
        def training_step(self, batch, batch_idx):
            raise KeyError

    trainer = quiet()
    with pytest.raises(KeyError):
        trainer.fit(Failing(), numbers())
    assert trainer.interrupted
    trainer.fit(tiny(), numbers())
    assert not trainer.interrupted
    assert not trainer.received_sigterm


def test_sigterm_is_seen_while_it_ends_the_run(quiet, tiny, numbers):
    seen = []

    class Told(L.Callback):
        def on_train_batch_start(self, trainer, *args):
            signal.raise_signal(signal.SIGTERM)
            seen.append(trainer.received_sigterm)

    with pytest.raises(SystemExit):
        quiet(callbacks=Told()).fit(tiny(), numbers())
    assert seen == [True]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_the_callbacks_of_a_module_take_the_place_of_those_that_they_derive_from(quiet, tiny, numbers):
    class Mine(L.callbacks.Timer): ...

    def after(own, given):
        class Own(tiny):
            def configure_callbacks(self):
                return own

        trainer = quiet(callbacks=given)
        trainer.fit(Own(), numbers())
        return trainer.callbacks

    base, mine, other = L.callbacks.Timer(), Mine(), L.callbacks.LambdaCallback()
    assert after([mine], [base, other]) == [other, mine]
    assert after([base], [mine]) == [mine, base]
    plain = L.Callback(), L.Callback()
    assert after([plain[0]], [plain[1]]) == [plain[1], plain[0]]


def test_a_timer_of_the_user_s_takes_the_place_of_max_time(quiet):
    timer = L.callbacks.Timer("00:00:00:05")
    assert quiet(callbacks=timer, max_time="1h").callbacks == [timer]
