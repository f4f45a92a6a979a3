"""configure_optimizers: every form that it may return, when schedulers step, and what is refused."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from leyden.core.errors import LeydenWarning, MisconfigurationException, MisconfigurationValueError


@pytest.fixture
def module(tiny):
    """Make a module whose ``configure_optimizers`` returns what a function makes of an optimiser."""

    class Configured(tiny):
        def __init__(self, form, score=None):
            super().__init__()
            self.other = torch.nn.Parameter(torch.ones(1))
            self.form, self.score = form, score
            self.rates = []

        def training_step(self, batch, batch_idx):
            self.rates += [round(o.param_groups[0]["lr"], 6) for o in self.trainer.optimizers[:1]]
            if self.score is not None:
                self.log("score", self.score(self), on_epoch=True)
            return super().training_step(batch, batch_idx) + self.other.square().sum()

        def configure_optimizers(self):
            return self.form(self.sgd())

        def sgd(self):
            return torch.optim.SGD([self.weight, self.other], lr=1.0)

    return Configured


def halving(optimizer):
    return StepLR(optimizer, 1, gamma=0.5)


class Own:
    """A scheduler that is none of torch's."""

    def __init__(self, optimizer):
        self.optimizer, self.calls = optimizer, []

    def step(self, *args):
        self.calls.append(args)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


FORMS = {
    "optimizer": lambda o: o,
    "list": lambda o: [o],
    "tuple": lambda o: (o,),
    "two lists": lambda o: ([o], [halving(o)]),
    "two tuples": lambda o: ((o,), (halving(o),)),
    "list and dict": lambda o: ([o], {"scheduler": halving(o)}),
    "list and list of dicts": lambda o: ([o], [{"scheduler": halving(o), "name": "mine"}]),
    "dict": lambda o: {"optimizer": o},
    "dict without a scheduler": lambda o: {"optimizer": o, "lr_scheduler": None},
    "dict with a scheduler": lambda o: {"optimizer": o, "lr_scheduler": halving(o)},
    "dict with a dict": lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), "interval": "epoch"}},
    "list of dicts": lambda o: [{"optimizer": o, "lr_scheduler": halving(o)}],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains(module, quiet, numbers, form):
    model = module(FORMS[form])
    trainer = quiet(max_epochs=2)
    trainer.fit(model, numbers())
    assert trainer.global_step == 8
    assert model.rates[-1] == (0.5 if trainer.lr_scheduler_configs else 1.0)
    assert len(trainer.optimizers) == 1


@pytest.mark.parametrize("nothing", [None, [], (), ([], [])])
def test_without_an_optimizer_training_runs_and_says_so(module, quiet, numbers, nothing):
    trainer = quiet()
    with pytest.warns(LeydenWarning, match="LY-O001.*this fit will run with no optimizer"):
        trainer.fit(module(lambda o: nothing), numbers())
    assert trainer.global_step == 0
    assert trainer.current_epoch == 1


WRONG = {
    "text": (lambda o: "adam", "Unknown configuration for model optimizers.*got str"),
    "class": (lambda o: torch.optim.SGD, "Unknown configuration.*got type"),
    "optimizer and scheduler": (lambda o: (o, halving(o)), "Unknown configuration"),
    "three": (lambda o: ([o], [], []), "Unknown configuration"),
    "mixed list": (lambda o: [o, {"optimizer": o}], "Unknown configuration"),
    "dict without optimizer": (lambda o: {"opt": o}, "the dict has no optimizer under 'optimizer'"),
    "dict with a class": (lambda o: {"optimizer": torch.optim.SGD}, "the dict has no optimizer under 'optimizer'"),
    "no scheduler": (lambda o: ([o], [3]), "The provided lr scheduler `int` is invalid. It should have `state_dict`"),
    "dict without one": (lambda o: ([o], [{"scheduler": 3}]), "The provided lr scheduler `int` is invalid"),
    "scheduler of another make": (
        lambda o: ([o], [Own(o)]),
        "scheduler `Own` doesn't follow PyTorch's LRScheduler API: override the `LightningModule.lr_scheduler_step`",
    ),
    "dict without scheduler": (lambda o: ([o], [{"interval": "step"}]), 'must have the key "scheduler"'),
    "interval": (
        lambda o: ([o], [{"scheduler": halving(o), "interval": "batch"}]),
        'The "interval" key in lr scheduler dict must be "step" or "epoch" but is "batch"',
    ),
    "frequency": (lambda o: ([o], [{"scheduler": halving(o), "frequency": 0}]), '"frequency".*at least 1; got 0'),
    "frequency type": (lambda o: ([o], [{"scheduler": halving(o), "frequency": 0.5}]), '"frequency".*got 0.5'),
    "plateau": (lambda o: ([o], [ReduceLROnPlateau(o)]), "must include a monitor when a `ReduceLROnPlateau`"),
    "plateau in a dict": (
        lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": ReduceLROnPlateau(o)}},
        "must include a monitor when a `ReduceLROnPlateau`",
    ),
    "foreign scheduler": (
        lambda o: ([o], [halving(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))]),
        "Some schedulers are attached with an optimizer that wasn't returned",
    ),
    "several": (
        lambda o: [o, torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)],
        "multiple optimizers is only supported with manual optimization",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_refused_is_named(module, quiet, numbers, kind):
    form, message = WRONG[kind]
    with pytest.raises(MisconfigurationException, match=message):
        quiet().fit(module(form), numbers())


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (lambda o: {"optimizer": o, "scheduler": halving(o)}, "LY-O002.*{'scheduler'}"),
        (lambda o: ([o], [{"scheduler": halving(o), "every": 2}]), "LY-O003.*{'every'}"),
    ],
)
def test_unknown_keys_are_named(module, quiet, numbers, form, code):
    with pytest.warns(RuntimeWarning, match=code):
        quiet().fit(module(form), numbers())


def test_a_frequency_that_is_no_count_is_a_value_error_too(module, quiet, numbers):
    with pytest.raises(MisconfigurationValueError) as raised:
        quiet().fit(module(WRONG["frequency"][0]), numbers())
    assert isinstance(raised.value, ValueError)


def test_a_scheduler_that_can_not_be_saved_is_a_type_error_too(module, quiet, numbers):
    with pytest.raises(TypeError, match="`state_dict` and `load_state_dict` methods"):
        quiet().fit(module(WRONG["no scheduler"][0]), numbers())


def test_one_cycle_over_epochs_is_doubted(module, quiet, numbers):
    model = module(lambda o: ([o], [{"scheduler": OneCycleLR(o, max_lr=1.0, total_steps=9)}]))
    with pytest.warns(
        RuntimeWarning, match="`OneCycleLR` scheduler is using 'interval': 'epoch'.*mean 'interval': 'step'"
    ):
        quiet().fit(model, numbers())


# -- when schedulers step ----------------------------------------------------------------------------------------------


def rates(module, quiet, numbers, config, *, epochs=3, **flags):
    """The learning rate of every batch; an epoch has two."""
    model = module(lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), **config}})
    quiet(max_epochs=epochs, **flags).fit(model, numbers(4))
    return model.rates


def test_by_default_once_an_epoch(module, quiet, numbers):
    assert rates(module, quiet, numbers, {}) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_every_second_epoch(module, quiet, numbers):
    assert rates(module, quiet, numbers, {"frequency": 2}) == [1, 1, 1, 1, 0.5, 0.5]


def test_every_optimizer_step(module, quiet, numbers):
    assert rates(module, quiet, numbers, {"interval": "step"}) == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]


def test_a_frequency_counts_steps_of_the_whole_run(module, quiet, numbers):
    """Three steps do not fit into an epoch of two: counted by the epoch the scheduler would never step."""
    config = {"interval": "step", "frequency": 3}
    assert rates(module, quiet, numbers, config, epochs=4) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_accumulated_batches_are_one_step(module, quiet, numbers):
    config = {"interval": "step"}
    assert rates(module, quiet, numbers, config, accumulate_grad_batches=2) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_schedule_goes_on_where_it_was_after_resuming(module, quiet, numbers, tmp_path):
    def make():
        return module(
            lambda o: {
                "optimizer": o,
                "lr_scheduler": {"scheduler": halving(o), "interval": "step", "frequency": 3},
            }
        )

    first, second = make(), make()
    trainer = quiet(max_epochs=2)
    trainer.fit(first, numbers(4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    quiet(max_epochs=4).fit(second, numbers(4), ckpt_path=tmp_path / "a.ckpt")
    assert first.rates + second.rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_several_schedulers_of_one_optimizer(module, quiet, numbers):
    def form(optimizer):
        by_step = {"scheduler": LambdaLR(optimizer, lambda step: 1.0), "interval": "step", "name": "warmup"}
        return [optimizer], [by_step, halving(optimizer)]

    model = module(form)
    trainer = quiet(max_epochs=2)
    trainer.fit(model, numbers(4))
    assert [c.name for c in trainer.lr_scheduler_configs] == ["warmup", None]
    assert [c.interval for c in trainer.lr_scheduler_configs] == ["step", "epoch"]
    assert [c.scheduler.last_epoch for c in trainer.lr_scheduler_configs] == [4, 2]


def test_the_hook_steps_schedulers_of_another_make(module, quiet, numbers):
    class Hooked(module):
        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step("from the hook", metric)

    model = Hooked(lambda o: ([o], [Own(o)]))
    trainer = quiet(max_epochs=2)
    trainer.fit(model, numbers(4))
    assert trainer.lr_scheduler_configs[0].scheduler.calls == [("from the hook", None)] * 2


# -- plateau -----------------------------------------------------------------------------------------------------------


def plateau(**config):
    def form(optimizer):
        scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **config}}

    return form


def test_a_plateau_halves_the_rate_at_the_end_of_epochs(module, quiet, numbers):
    model = module(plateau(monitor="score"), score=lambda m: 1.0)
    quiet(max_epochs=4).fit(model, numbers(4))
    assert model.rates == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_the_monitor_may_stand_beside_the_optimizer(module, quiet, numbers):
    model = module(lambda o: {**plateau()(o), "monitor": "score"}, score=lambda m: 1.0)
    quiet(max_epochs=3).fit(model, numbers(4))
    assert model.rates[-1] == 0.5


def test_a_plateau_sees_a_value_that_is_logged_at_steps_only(module, quiet, numbers):
    """The last step's, whether or not a logger takes it."""

    class Stepwise(module):
        def training_step(self, batch, batch_idx):
            self.log("score", 1.0 if batch_idx else 5.0)
            return super().training_step(batch, batch_idx)

    model = Stepwise(plateau(monitor="score"))
    quiet(max_epochs=3).fit(model, numbers(4))
    assert model.rates == [1, 1, 1, 1, 0.5, 0.5]


def test_a_plateau_over_steps(module, quiet, numbers):
    model = module(plateau(monitor="score", interval="step"), score=lambda m: 1.0)
    quiet(max_epochs=2).fit(model, numbers(4))
    assert model.rates == [1, 1, 0.5, 0.25]


def test_a_plateau_sees_the_validation_of_its_epoch(module, quiet, numbers):
    class Validated(module):
        def validation_step(self, batch, batch_idx):
            self.log("val", [3.0, 2.0, 2.5, 2.5][self.current_epoch])

    model = Validated(plateau(monitor="val"))
    quiet(max_epochs=4, num_sanity_val_steps=0).fit(model, numbers(4), numbers(2))
    assert model.rates == [1, 1, 1, 1, 1, 1, 0.5, 0.5]


def test_a_missing_monitored_value_is_an_error_that_lists_what_there_is(module, quiet, numbers):
    model = module(plateau(monitor="socre"), score=lambda m: 1.0)
    with pytest.raises(
        MisconfigurationException, match=r"metric socre which is not available.*\['score'.*\].*`monitor` key"
    ):
        quiet().fit(model, numbers())


def test_a_missing_monitored_value_can_be_borne(module, quiet, numbers):
    model = module(plateau(monitor="score", strict=False))
    with pytest.warns(
        RuntimeWarning, match="LY-O004.*metric score which is not available but strict is set to `False`"
    ):
        quiet(max_epochs=2).fit(model, numbers())
    assert set(model.rates) == {1.0}


def test_another_scheduler_can_be_given_a_monitor(module, quiet, numbers):
    seen = []

    class Watching(module):
        def lr_scheduler_step(self, scheduler, metric):
            seen.append(float(metric))

    form = {"monitor": "score", "reduce_on_plateau": True}
    model = Watching(lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), **form}}, score=lambda m: 2.0)
    quiet().fit(model, numbers())
    assert seen == [2.0]


# -- manual optimisation -----------------------------------------------------------------------------------------------


def test_in_manual_optimization_nobody_steps_a_scheduler_and_a_plateau_needs_no_monitor(quiet, numbers, tiny):
    class Manual(tiny):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            first.step()
            second.step()

        def configure_optimizers(self):
            made = [torch.optim.SGD(self.parameters(), lr=1.0) for _ in range(2)]
            return made, [halving(made[0]), ReduceLROnPlateau(made[1])]

    model = Manual()
    trainer = quiet(max_epochs=2)
    trainer.fit(model, numbers(4))
    assert trainer.global_step == 8
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [1.0, 1.0]
    assert [type(s) for s in model.lr_schedulers()] == [StepLR, ReduceLROnPlateau]


def test_an_optimizer_that_needs_a_closure_trains(quiet, numbers, tiny):
    class Newton(tiny):
        def training_step(self, batch, batch_idx):
            return (self.weight - 3).square().sum()

        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=1.0)

    model = Newton()
    trainer = quiet()
    trainer.fit(model, numbers())
    assert model.weight.item() == pytest.approx(3.0, abs=1e-5)
    assert trainer.global_step == 4


def test_the_trainer_shows_optimizers_and_schedulers(module, quiet, numbers):
    seen = {}

    class Looking(module):
        def on_train_start(self):
            seen["optimizer"] = self.optimizers()
            seen["raw"] = self.optimizers(use_pl_optimizer=False)
            seen["scheduler"] = self.lr_schedulers()

    trainer = quiet()
    trainer.fit(Looking(FORMS["two lists"]), numbers())
    assert seen["raw"] is trainer.optimizers[0]
    assert seen["optimizer"].optimizer is seen["raw"]
    assert seen["scheduler"] is trainer.lr_scheduler_configs[0].scheduler
