"""Averaged weights: when they are taken, who sees them, and what a checkpoint holds."""

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from leyden.core.errors import LeydenWarning


@pytest.fixture
def walker(tiny):
    """A module whose one weight grows by one at each step."""

    class Walker(tiny):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(("train", self.weight.item()))
            return -self.weight

        def validation_step(self, batch, batch_idx):
            self.seen.append(("val", self.weight.item()))

        def test_step(self, batch, batch_idx):
            self.seen.append(("test", self.weight.item()))

        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=1.0)

    return Walker


class Every(WeightAveraging):
    """Averages the steps of a set."""

    def __init__(self, *steps, **arguments):
        super().__init__(**arguments)
        self.steps = steps

    def should_update(self, step_idx=None, epoch_idx=None):
        return step_idx in self.steps


def test_by_default_the_mean_over_all_steps_is_left_behind(quiet, walker, numbers):
    model = walker()
    quiet(callbacks=WeightAveraging(), max_epochs=2).fit(model, numbers(), numbers())
    assert model.weight.item() == pytest.approx(sum(range(1, 9)) / 8)


def test_steps_and_epochs_can_be_chosen(quiet, walker, numbers):
    model = walker()
    quiet(callbacks=Every(0, 5), max_epochs=2).fit(model, numbers(), numbers())
    assert model.weight.item() == pytest.approx((1 + 6) / 2)

    class Epochs(WeightAveraging):
        def should_update(self, step_idx=None, epoch_idx=None):
            return epoch_idx is not None

    model = walker()
    quiet(callbacks=Epochs(), max_epochs=2).fit(model, numbers(), numbers())
    assert model.weight.item() == pytest.approx((4 + 8) / 2)


def test_a_window_of_accumulation_counts_once(quiet, walker, numbers):
    model = walker()
    quiet(callbacks=WeightAveraging(), accumulate_grad_batches=2, max_epochs=1).fit(model, numbers(), numbers())
    assert model.weight.item() == pytest.approx((1 + 2) / 2)


def test_validation_sees_the_average_and_training_does_not(quiet, walker, numbers):
    model = walker()
    quiet(callbacks=WeightAveraging(), max_epochs=2, num_sanity_val_steps=0).fit(model, numbers(), numbers(2))
    assert model.seen == [
        *(("train", float(n)) for n in range(4)),
        ("val", 2.5),
        *(("train", float(n)) for n in range(4, 8)),
        ("val", 4.5),
    ]


def test_an_exponential_average(quiet, walker, numbers):
    model = walker()
    quiet(callbacks=EMAWeightAveraging(decay=0.5), max_epochs=1).fit(model, numbers(), numbers())
    assert model.weight.item() == pytest.approx(((1 * 0.5 + 2 * 0.5) * 0.5 + 3 * 0.5) * 0.5 + 4 * 0.5)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"update_every_n_steps": 2}, [0, 2, 4]),
        ({"update_starting_at_step": 3}, [3, 4, 5]),
        ({"update_every_n_steps": 0}, []),
    ],
)
def test_when_an_exponential_average_moves(arguments, steps):
    callback = EMAWeightAveraging(**arguments)
    assert [step for step in range(6) if callback.should_update(step_idx=step)] == steps
    assert not callback.should_update(epoch_idx=5)
    assert EMAWeightAveraging(update_starting_at_epoch=5).should_update(epoch_idx=5)


def test_a_checkpoint_holds_the_average_and_the_weights_in_training(quiet, walker, numbers, tmp_path):
    saving = ModelCheckpoint(tmp_path, save_last=True)
    quiet(callbacks=[WeightAveraging(), saving], enable_checkpointing=None).fit(walker(), numbers(), numbers())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].item() == pytest.approx(2.5)
    assert checkpoint["current_model_state"]["weight"].item() == 4
    assert checkpoint["averaging_state"]["n_averaged"].item() == 4
    assert checkpoint["callbacks"]["WeightAveraging"]["latest_update_step"] == 4
    assert walker.load_from_checkpoint(tmp_path / "last.ckpt").weight.item() == pytest.approx(2.5)


def test_a_checkpoint_after_the_fit_or_within_validation_holds_the_same(quiet, walker, numbers, tmp_path):
    class Saving(L.Callback):
        def on_validation_batch_end(self, trainer, *args):
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    trainer = quiet(callbacks=[WeightAveraging(), Saving()], num_sanity_val_steps=0)
    trainer.fit(walker(), numbers(), numbers())
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("within.ckpt", "after.ckpt"):
        checkpoint = torch.load(tmp_path / name, weights_only=True)
        assert checkpoint["state_dict"]["weight"].item() == pytest.approx(2.5)
        assert checkpoint["current_model_state"]["weight"].item() == 4


def test_a_resumed_run_ends_with_the_same_average(quiet, walker, numbers, tmp_path):
    class Saving(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole, resumed = walker(), walker()
    quiet(callbacks=[Every(1, 5, 6), Saving()], max_epochs=3).fit(whole, numbers(), numbers())
    quiet(callbacks=Every(1, 5, 6), max_epochs=3).fit(resumed, numbers(), numbers(), ckpt_path=tmp_path / "middle.ckpt")
    assert resumed.weight.item() == whole.weight.item() == pytest.approx((2 + 6 + 7) / 3)


def test_a_failing_validation_gives_the_weights_back(quiet, walker, numbers):
    class Failing(walker):
        def validation_step(self, batch, batch_idx):
            raise KeyError("mine")

    model = Failing()
    with pytest.raises(KeyError, match="mine"):
        quiet(callbacks=WeightAveraging(), num_sanity_val_steps=0).fit(model, numbers(), numbers())
    assert model.weight.item() == 4


def test_outside_of_a_fit_the_saved_average_is_used(quiet, walker, numbers, tmp_path):
    trainer = quiet(callbacks=WeightAveraging())
    trainer.fit(walker(), numbers(), numbers())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    for again in (trainer, quiet(callbacks=WeightAveraging())):
        model = walker()
        with pytest.warns(LeydenWarning, match="loading a checkpoint outside the 'fit' stage"):
            again.test(model, numbers(2), ckpt_path=tmp_path / "end.ckpt", verbose=False)
        assert model.seen == [("test", 2.5)]


def test_a_checkpoint_of_a_run_without_it_begins_an_average(quiet, walker, numbers, tmp_path):
    trainer = quiet()
    trainer.fit(walker(), numbers(), numbers())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    model = walker()
    with pytest.warns(LeydenWarning, match="was not created with WeightAveraging"):
        quiet(callbacks=WeightAveraging(), max_epochs=2).fit(
            model, numbers(), numbers(), ckpt_path=tmp_path / "plain.ckpt"
        )
    assert model.weight.item() == pytest.approx((5 + 6 + 7 + 8) / 4)


def test_buffers_are_averaged_unless_they_are_left_out(quiet, walker, numbers):
    class Buffered(walker):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def training_step(self, batch, batch_idx):
            self.count += 1
            return super().training_step(batch, batch_idx)

    for averaged, expected in ((True, 2.5), (False, 4.0)):
        model = Buffered()
        quiet(callbacks=WeightAveraging(use_buffers=averaged)).fit(model, numbers(), numbers())
        assert model.count.item() == pytest.approx(expected)


def test_a_model_that_builds_its_layers_late_is_built_and_warned_about(quiet, walker, numbers):
    class Late(walker):
        def configure_model(self):
            self.late = nn.Linear(1, 1)

    with pytest.warns(LeydenWarning, match="overrides the configure_model callback"):
        quiet(callbacks=WeightAveraging()).fit(Late(), numbers(), numbers())
