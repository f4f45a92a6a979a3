"""GradientAccumulationScheduler: how many batches make a step, by the epoch."""

import pytest

from leyden.core.callbacks import GradientAccumulationScheduler, LambdaCallback
from leyden.core.errors import MisconfigurationException


def test_steps_follow_the_schedule(quiet, tiny, numbers):
    ends = []
    count = LambdaCallback(on_train_epoch_end=lambda trainer, pl_module: ends.append(trainer.global_step))
    trainer = quiet(callbacks=[GradientAccumulationScheduler({1: 2, 3: 4}), count], max_epochs=4)
    trainer.fit(tiny(), numbers(8))
    assert ends == [4, 6, 8, 9]


def test_weights_equal_those_of_single_fits(quiet, tiny, numbers):
    scheduled, model = tiny(), tiny()
    quiet(callbacks=GradientAccumulationScheduler({0: 4, 1: 2}), max_epochs=2).fit(scheduled, numbers(8))
    quiet(accumulate_grad_batches=4).fit(model, numbers(8))
    quiet(accumulate_grad_batches=2).fit(model, numbers(8))
    assert scheduled.weight.item() == model.weight.item()


def test_a_trainer_can_fit_again(quiet, tiny, numbers):
    trainer = quiet(callbacks=GradientAccumulationScheduler({0: 2}))
    trainer.fit(tiny(), numbers(8))
    assert trainer.accumulate_grad_batches == 1
    trainer.fit(tiny(), numbers(8))
    assert trainer.global_step == 2


def test_an_open_epoch_goes_on_with_its_number(quiet, tiny, numbers, tmp_path):
    def callbacks(at=None):
        def save(trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == at:
                trainer.save_checkpoint(tmp_path / "open.ckpt")

        return [GradientAccumulationScheduler({1: 2}), LambdaCallback(on_train_batch_end=save)]

    straight, resumed = tiny(), tiny()
    quiet(callbacks=callbacks(at=2), max_epochs=2).fit(straight, numbers(8))
    trainer = quiet(callbacks=callbacks(), max_epochs=2)
    trainer.fit(resumed, numbers(8), ckpt_path=tmp_path / "open.ckpt")
    assert trainer.global_step == 6
    assert resumed.weight.item() == straight.weight.item()


@pytest.mark.parametrize("scheduling", [{}, None, [2]])
def test_there_must_be_a_schedule(scheduling):
    with pytest.raises(TypeError, match="`scheduling` must be a dict"):
        GradientAccumulationScheduler(scheduling)


@pytest.mark.parametrize(
    ("scheduling", "message"),
    [
        ({-1: 2}, "Epoch should be an int greater than or equal to 0"),
        ({"1": 2}, "Epoch should be an int"),
        ({1: 0}, "Accumulation factor should be an int greater than 0"),
        ({1: 2.0}, "Accumulation factor should be an int"),
    ],
)
def test_wrong_entries_are_refused(scheduling, message):
    with pytest.raises(MisconfigurationException, match=message):
        GradientAccumulationScheduler(scheduling)


def test_contradictions_are_refused(quiet, tiny, numbers):
    with pytest.raises(ValueError, match="You have set `accumulate_grad_batches`"):
        quiet(callbacks=GradientAccumulationScheduler({1: 2}), accumulate_grad_batches=3).fit(tiny(), numbers())

    manual = tiny()
    manual.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="not supported for manual optimization"):
        quiet(callbacks=GradientAccumulationScheduler({1: 2})).fit(manual, numbers())
