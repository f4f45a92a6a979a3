"""EarlyStopping: when the training ends, why, and that a resumed run remembers."""

import math

import pytest
import torch

import leyden.core as L
from leyden.core.callbacks.early_stopping import EarlyStoppingReason as Reason
from leyden.core.errors import LeydenWarning, MisconfigurationException


@pytest.fixture
def scored(tiny):
    """Make a module that logs a score per epoch, in validation and in training."""

    class Scored(tiny):
        def __init__(self, scores):
            super().__init__()
            self.scores = scores

        def training_step(self, batch, batch_idx):
            self.log("train_score", self.scores[self.current_epoch], on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.log("score", self.scores[min(self.current_epoch, len(self.scores) - 1)])

    return Scored


@pytest.fixture
def epochs(quiet, scored, numbers):
    """Train on scores, one an epoch, and return how many epochs that took."""

    def run(scores, *, monitor="score", max_epochs=None, flags=None, **options):
        stopper = L.callbacks.EarlyStopping(monitor, **options)
        trainer = quiet(max_epochs=max_epochs or len(scores), callbacks=stopper, **(flags or {}))
        trainer.fit(scored(scores), numbers(), numbers(2))
        return trainer.current_epoch, stopper

    return run


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([5, 4, 3, 2, 1], {}, 5),
        ([5, 4, 4, 4, 4, 1], {}, 5),
        ([5, 4, 4, 4, 4, 1], {"patience": 4}, 6),
        ([5, 6, 7, 8, 9], {"patience": 1}, 2),
        ([5, 6, 7, 8, 9], {"patience": 2}, 3),
        ([5, 6, 4, 6, 6, 6], {"patience": 2}, 5),
        ([5, 5, 5], {"patience": 0}, 2),
        ([1, 2, 3, 4], {"mode": "max"}, 4),
        ([4, 3, 2, 1, 9], {"mode": "max"}, 4),
        ([4, 3, 5, 1, 1, 1], {"mode": "max", "patience": 2}, 5),
        ([5, 4.95, 4.9, 4.85], {"min_delta": 0.1}, 4),
        ([5, 4.95, 4.89, 4.84, 4.8, 4.7], {"min_delta": 0.1, "patience": 2}, 5),
        ([5, 5.05, 5.1, 5.15, 9], {"min_delta": 0.1, "mode": "max"}, 5),
        ([5, 5.05, 5.09, 5.08, 9], {"min_delta": 0.1, "mode": "max"}, 4),
        ([5, 4.9, 4.8], {"min_delta": -0.5, "patience": 1}, 2),
    ],
)
def test_patience_and_min_delta(epochs, scores, options, expected):
    assert epochs(scores, **options)[0] == expected


def test_the_reason_of_patience_is_told(epochs):
    count, stopper = epochs([5.0, 6.0, 7.0, 8.0], patience=2)
    assert (count, stopper.stopped_epoch, stopper.wait_count) == (3, 2, 2)
    assert stopper.stopping_reason == Reason.PATIENCE_EXHAUSTED
    assert stopper.stopping_reason_message.startswith("Monitored metric score did not improve in the last 2 records.")
    assert float(stopper.best_score) == 5.0


def test_a_run_to_the_end_has_no_reason(epochs):
    _, stopper = epochs([3, 2, 1])
    assert (stopper.stopping_reason, stopper.stopping_reason_message) == (Reason.NOT_STOPPED, None)
    assert stopper.stopped_epoch == 0


@pytest.mark.parametrize(
    ("scores", "options", "expected", "reason", "words"),
    [
        ([5, 4, 0.9, 3, 3], {"stopping_threshold": 1.0}, 3, Reason.STOPPING_THRESHOLD, "< 1.0"),
        ([5, 4, 1.0, 0.5, 3], {"stopping_threshold": 1.0}, 4, Reason.STOPPING_THRESHOLD, "< 1.0"),
        ([1, 2, 9.5, 3], {"stopping_threshold": 9.0, "mode": "max"}, 3, Reason.STOPPING_THRESHOLD, "> 9.0"),
        ([5, 4, 11, 3, 3], {"divergence_threshold": 10.0}, 3, Reason.DIVERGENCE_THRESHOLD, "> 10.0"),
        ([5, 4, 10, 3, 3], {"divergence_threshold": 10.0}, 5, Reason.NOT_STOPPED, None),
        ([5, 4, -11, 3], {"divergence_threshold": -10.0, "mode": "max"}, 3, Reason.DIVERGENCE_THRESHOLD, "< -10.0"),
    ],
)
def test_thresholds(epochs, scores, options, expected, reason, words):
    count, stopper = epochs([float(s) for s in scores], patience=10, **options)
    assert (count, stopper.stopping_reason) == (expected, reason)
    assert words is None or words in stopper.stopping_reason_message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_the_training(epochs, bad):
    count, stopper = epochs([5.0, bad, 3.0])
    assert (count, stopper.stopping_reason) == (2, Reason.NON_FINITE_METRIC)
    assert "not finite. Previous best value was 5.000" in stopper.stopping_reason_message


def test_a_value_that_is_not_finite_can_be_borne(epochs):
    count, stopper = epochs([5.0, math.nan, math.nan, 3.0], check_finite=False)
    assert (count, float(stopper.best_score)) == (4, 3.0)


def test_a_missing_value_is_an_error_that_lists_what_there_is(epochs):
    with pytest.raises(RuntimeError, match=r"metric `scroe` which is not available.*`score`.*`train_score`"):
        epochs([1, 2, 3], monitor="scroe")


def test_a_missing_value_can_be_borne(epochs):
    with pytest.warns(LeydenWarning, match="LY-E001.*metric `scroe` which is not available"):
        assert epochs([1, 2, 3], monitor="scroe", strict=False)[0] == 3


def test_an_unknown_mode_is_refused():
    with pytest.raises(MisconfigurationException, match="`mode` can be 'min' or 'max', got auto"):
        L.callbacks.EarlyStopping("x", mode="auto")


def test_a_training_value_is_checked_at_the_end_of_training_epochs(epochs):
    assert epochs([5, 6, 7, 8, 9], monitor="train_score", patience=2)[0] == 3


def test_a_value_logged_at_steps_only_can_be_monitored(quiet, tiny, numbers):
    class Stepwise(tiny):
        def training_step(self, batch, batch_idx):
            self.log("loss", float(batch_idx))
            return super().training_step(batch, batch_idx)

    stopper = L.callbacks.EarlyStopping("loss", patience=2)
    trainer = quiet(max_epochs=9, callbacks=stopper)
    trainer.fit(Stepwise(), numbers())
    assert (trainer.current_epoch, float(stopper.best_score)) == (3, 3.0)


@pytest.fixture
def moments(quiet, scored, numbers):
    """Train two epochs of four batches and return after how many batches a score was checked."""

    def run(at_train_end, **flags):
        seen, batches = [], [0]

        class Noting(L.callbacks.EarlyStopping):
            def _run_early_stopping_check(self, trainer):
                seen.append((batches[0], trainer.validating))

            def on_train_batch_end(self, *args):
                batches[0] += 1

        stopper = Noting("score", check_on_train_epoch_end=at_train_end)
        quiet(max_epochs=2, callbacks=stopper, **flags).fit(scored([1.0, 2.0]), numbers(), numbers(2))
        return seen

    return run


def test_the_moment_of_the_check(moments):
    assert moments(None) == [(4, False), (8, False)], "validation once an epoch: at the end of the training epoch"
    assert moments(True) == [(4, False), (8, False)]
    assert moments(False) == [(4, True), (8, True)]
    assert moments(None, val_check_interval=2) == [(2, True), (4, True), (6, True), (8, True)]
    assert moments(None, check_val_every_n_epoch=2) == [(8, True)]
    assert moments(True, val_check_interval=2) == [(4, False), (8, False)]


def test_it_does_not_act_in_the_sanity_check_or_in_other_verbs(quiet, scored, numbers):
    stopper = L.callbacks.EarlyStopping("score", patience=1, check_on_train_epoch_end=False)
    trainer = quiet(max_epochs=3, callbacks=stopper, num_sanity_val_steps=2)
    model = scored([3, 2, 1])
    trainer.fit(model, numbers(), numbers(2))
    before = stopper.state_dict()
    trainer.validate(model, numbers(2), verbose=False)
    assert stopper.state_dict() == before
    assert trainer.current_epoch == 3


def test_the_smallest_number_of_epochs_is_trained_all_the_same(epochs):
    count, stopper = epochs([5, 6, 7, 8, 9, 9], patience=1, flags={"min_epochs": 4})
    assert count == 4
    assert stopper.stopping_reason == Reason.PATIENCE_EXHAUSTED


@pytest.mark.parametrize("saved_after", [1, 2, 3])
def test_a_resumed_run_stops_where_the_whole_one_does(quiet, scored, numbers, tmp_path, saved_after):
    scores = [5.0, 4.0, 4.5, 4.5, 4.5, 1.0]
    first = L.callbacks.EarlyStopping("score", patience=3)
    trainer = quiet(max_epochs=saved_after, callbacks=first)
    trainer.fit(scored(scores), numbers(), numbers(2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    second = L.callbacks.EarlyStopping("score", patience=3)
    trainer = quiet(max_epochs=6, callbacks=second)
    trainer.fit(scored(scores), numbers(), numbers(2), ckpt_path=tmp_path / "a.ckpt")
    assert (trainer.current_epoch, second.wait_count, float(second.best_score)) == (5, 3, 4.0)


def test_its_state_is_plain_data_under_the_key_of_the_reference(quiet, scored, numbers, tmp_path):
    stopper = L.callbacks.EarlyStopping("score", patience=1)
    trainer = quiet(max_epochs=4, callbacks=stopper)
    trainer.fit(scored([5.0, 6.0, 1.0, 1.0]), numbers(), numbers(2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]
    state = state["EarlyStopping{'monitor': 'score', 'mode': 'min'}"]
    assert {k: state[k] for k in ("wait_count", "stopped_epoch", "patience")} == {
        "wait_count": 1,
        "stopped_epoch": 1,
        "patience": 1,
    }
    assert state["stopping_reason"] == Reason.PATIENCE_EXHAUSTED.value
    other = L.callbacks.EarlyStopping("score")
    other.load_state_dict(state)
    assert (other.stopping_reason, other.patience) == (Reason.PATIENCE_EXHAUSTED, 1)


def test_two_values_can_be_monitored_at_once(quiet, scored, numbers):
    stoppers = [
        L.callbacks.EarlyStopping("score", patience=9),
        L.callbacks.EarlyStopping("score", patience=2, mode="max"),
    ]
    trainer = quiet(max_epochs=6, callbacks=stoppers)
    trainer.fit(scored([6, 5, 4, 3, 2, 1]), numbers(), numbers(2))
    assert trainer.current_epoch == 3
    assert trainer.early_stopping_callbacks == stoppers
    assert trainer.early_stopping_callback is stoppers[0]


def test_what_happens_is_printed_on_request(epochs, capsys):
    epochs([5.0, 4.0, 6.0, 6.0], patience=1, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "Metric score improved. New best score: 5.000",
        "Metric score improved by 1.000 >= min_delta = 0.0. New best score: 4.000",
        "Monitored metric score did not improve in the last 1 records. Best score: 4.000. Signaling Trainer to stop.",
    ]


def test_a_fit_of_another_model_starts_from_the_state_before_the_first(quiet, scored, numbers):
    stopper = L.callbacks.EarlyStopping("score", patience=2)
    trainer = quiet(max_epochs=5, callbacks=stopper)
    trainer.fit(scored([1.0, 2.0, 3.0, 4.0, 5.0]), numbers(), numbers(2))
    assert trainer.current_epoch == 3
    trainer.fit(scored([9.0, 8.0, 7.0, 6.0, 5.0]), numbers(), numbers(2))
    assert (trainer.current_epoch, stopper.stopping_reason) == (5, Reason.NOT_STOPPED)
