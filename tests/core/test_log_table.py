"""Tables of self.log: every hook, every combination of flags, and under which keys which numbers come out."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException


class Rows(L.loggers.Logger):
    """A logger that keeps its rows in memory."""

    name, version = "rows", 0

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, metrics=None):
        pass


class Model(L.LightningModule):
    """Every step does something, so that every hook is reached."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def predict_step(self, batch, batch_idx):
        return batch

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def data():
    return DataLoader(TensorDataset(torch.ones(6, 2)), batch_size=2)


def run(tmp_path, verb, owner, hook, *, rows=False, epochs=1, **flags):
    """Log 1.0, 2.0, ... as ``a`` in one hook of the module or of a callback."""
    base = Model if owner == "module" else L.Callback

    class Logging(base):
        pass

    def method(self, *args, **kwargs):
        self.log("a", float(next(counter)), **flags)
        return getattr(super(Logging, self), hook)(*args, **kwargs)

    setattr(Logging, hook, method)
    counter = itertools.count(1)
    model, callbacks = (Logging(), []) if owner == "module" else (Model(), [Logging()])
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        logger=rows,
        callbacks=callbacks,
        max_epochs=epochs,
        num_sanity_val_steps=1 if "sanity" in hook else 0,
        log_every_n_steps=1,
        **off,
    )
    if verb == "fit":
        trainer.fit(model, data(), data())
    else:
        getattr(trainer, verb)(model, data())
    return trainer


def numbers(values):
    return {name: float(value) for name, value in values.items()}


# -- keys and numbers: three batches of training or evaluation ---------------------------------------------------------

STEPS = [(0, {"a": 1.0}), (1, {"a": 2.0}), (2, {"a": 3.0})]
BOTH = [(0, {"a_step": 1.0}), (1, {"a_step": 2.0}), (2, {"a_step": 3.0})]
# (hook, on_step, on_epoch) -> values for monitors, rows for loggers (training rows also hold the epoch)
TRAINING = {
    (None, None): ({"a": 3.0}, STEPS),
    (True, None): ({"a": 3.0}, STEPS),
    (None, False): ({"a": 3.0}, STEPS),
    (True, False): ({"a": 3.0}, STEPS),
    (None, True): ({"a": 2.0, "a_step": 3.0, "a_epoch": 2.0}, [*BOTH, (2, {"a_epoch": 2.0})]),
    (True, True): ({"a": 2.0, "a_step": 3.0, "a_epoch": 2.0}, [*BOTH, (2, {"a_epoch": 2.0})]),
    (False, True): ({"a": 2.0}, [(2, {"a": 2.0})]),
}
EVALUATION = {
    (None, None): ({"a": 2.0}, [(0, {"a": 2.0, "epoch": 0.0})]),
    (False, None): ({"a": 2.0}, [(0, {"a": 2.0, "epoch": 0.0})]),
    (None, True): ({"a": 2.0}, [(0, {"a": 2.0, "epoch": 0.0})]),
    (False, True): ({"a": 2.0}, [(0, {"a": 2.0, "epoch": 0.0})]),
    (True, None): ({"a": 2.0, "a_epoch": 2.0}, [*BOTH, (0, {"a_epoch": 2.0, "epoch": 0.0})]),
    (True, True): ({"a": 2.0, "a_epoch": 2.0}, [*BOTH, (0, {"a_epoch": 2.0, "epoch": 0.0})]),
    (True, False): ({}, STEPS),
}
TRAINING_HOOKS = [
    *("training_step", "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step", "optimizer_step", "optimizer_zero_grad", "backward"),
    "configure_gradient_clipping",
]


@pytest.mark.parametrize("flags", TRAINING, ids=str)
@pytest.mark.parametrize("hook", TRAINING_HOOKS)
def test_where_training_logs_at_steps_by_default(tmp_path, hook, flags):
    on_step, on_epoch = flags
    monitored, rows = TRAINING[flags]
    logger = Rows()
    trainer = run(tmp_path, "fit", "module", hook, rows=logger, on_step=on_step, on_epoch=on_epoch)
    assert numbers(trainer.callback_metrics) == monitored
    assert logger.rows == [(step, {**values, "epoch": 0.0}) for step, values in rows]


@pytest.mark.parametrize("flags", EVALUATION, ids=str)
@pytest.mark.parametrize("hook", ["{}_step", "on_{}_batch_start", "on_{}_batch_end"])
@pytest.mark.parametrize("stage", ["validation", "test"])
def test_where_evaluation_logs_over_the_epoch_by_default(tmp_path, stage, hook, flags):
    on_step, on_epoch = flags
    monitored, rows = EVALUATION[flags]
    logger, verb = Rows(), "validate" if stage == "validation" else "test"
    trainer = run(tmp_path, verb, "module", hook.format(stage), rows=logger, on_step=on_step, on_epoch=on_epoch)
    assert numbers(trainer.callback_metrics) == monitored
    assert logger.rows == rows


def test_step_values_of_evaluation_go_on_along_the_axis_from_pass_to_pass(tmp_path):
    logger = Rows()
    run(tmp_path, "fit", "module", "validation_step", rows=logger, epochs=2, on_step=True, on_epoch=False)
    assert logger.rows == [(i, {"a": i + 1.0}) for i in range(6)]


@pytest.mark.parametrize("logger", [None, True, False])
@pytest.mark.parametrize("prog_bar", [True, False])
@pytest.mark.parametrize("on_epoch", [True, False])
@pytest.mark.parametrize("hook", ["training_step", "on_train_batch_end"])
def test_bar_and_loggers_see_what_they_are_to_see_and_monitors_all(tmp_path, hook, on_epoch, prog_bar, logger):
    rows = Rows()
    trainer = run(tmp_path, "fit", "module", hook, rows=rows, on_epoch=on_epoch, prog_bar=prog_bar, logger=logger)
    values = {"a_step": 3.0, "a_epoch": 2.0} if on_epoch else {"a": 3.0}
    assert trainer.progress_bar_metrics == (values if prog_bar else {})
    assert numbers(trainer.logged_metrics) == ({} if logger is False else values)
    assert bool(rows.rows) == (logger is not False)
    assert numbers(trainer.callback_metrics) == ({**values, "a": 2.0} if on_epoch else values)


@pytest.mark.parametrize("owner", ["module", "callback"])
@pytest.mark.parametrize(
    ("verb", "hook"),
    [
        *(("fit", f"on_train_{when}") for when in ("start", "epoch_start", "epoch_end")),
        *(("validate", f"on_validation_{when}") for when in ("start", "epoch_start", "epoch_end")),
        *(("test", f"on_test_{when}") for when in ("start", "epoch_start", "epoch_end")),
    ],
)
def test_starts_and_ends_log_over_the_epoch_only(tmp_path, verb, hook, owner):
    logger = Rows()
    trainer = run(tmp_path, verb, owner, hook, rows=logger, prog_bar=True)
    assert numbers(trainer.callback_metrics) == numbers(trainer.logged_metrics) == {"a": 1.0}
    assert trainer.progress_bar_metrics == {"a": 1.0}
    assert logger.rows == [(2 if verb == "fit" else 0, {"a": 1.0, "epoch": 0.0})]
    refused = {"on_step": (True, False), "on_epoch": (False, True)}
    for flag, (wrong, right) in refused.items():
        with pytest.raises(
            MisconfigurationException,
            match=rf"You can't `self.log\({flag}={wrong}\)` inside `{hook}`, must be one of \({right},\)",
        ):
            run(tmp_path, verb, owner, hook, **{flag: wrong})


# -- where nothing can be logged ---------------------------------------------------------------------------------------

FORBIDDEN = {
    "module": {
        "fit": [
            *("setup", "on_fit_start", "on_fit_end", "on_train_end", "on_validation_end", "configure_callbacks"),
            *("configure_model", "configure_optimizers", "lr_scheduler_step", "on_validation_model_eval"),
            *("on_validation_model_train", "on_validation_model_zero_grad", "transfer_batch_to_device"),
        ],
        "validate": ["setup", "on_validation_end", "on_validation_model_eval", "on_validation_model_train"],
        "test": ["setup", "on_test_end", "on_test_model_eval", "on_test_model_train"],
        "predict": [
            *("on_predict_start", "on_predict_end", "on_predict_epoch_start", "on_predict_epoch_end", "predict_step"),
            *("on_predict_batch_start", "on_predict_batch_end", "on_predict_model_eval"),
        ],
    },
    "callback": {
        "fit": [
            *("setup", "on_fit_start", "on_fit_end", "on_sanity_check_start", "on_sanity_check_end", "on_train_end"),
            "on_validation_end",
        ],
        "validate": ["setup", "on_validation_end"],
        "test": ["setup", "on_test_end"],
        "predict": [f"on_predict_{when}" for when in ("start", "end", "epoch_start", "epoch_end", "batch_start")],
    },
}


@pytest.mark.parametrize(
    ("owner", "verb", "hook"),
    [(owner, verb, hook) for owner, verbs in FORBIDDEN.items() for verb, hooks in verbs.items() for hook in hooks],
)
def test_every_other_hook_refuses_and_is_named(tmp_path, owner, verb, hook):
    message = rf"You can't `self.log\(\)` inside `{hook}`"
    if verb == "predict":
        message = "trying to log in a `predict` hook, but it doesn't support logging"
    with pytest.raises(MisconfigurationException, match=message):
        run(tmp_path, verb, owner, hook)


@pytest.mark.parametrize("hook", [*TRAINING_HOOKS, "validation_step", "on_validation_batch_end"])
def test_a_value_for_nobody_is_refused(tmp_path, hook):
    with pytest.raises(MisconfigurationException, match=r"`self.log\(on_step=False, on_epoch=False\)` is not useful"):
        run(tmp_path, "fit", "module", hook, on_step=False, on_epoch=False)


# -- reductions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce_fx", "value"),
    [
        *(("mean", 2.0), ("avg", 2.0), ("MEAN", 2.0), (torch.mean, 2.0), ("sum", 6.0), (torch.sum, 6.0), (sum, 6.0)),
        *(("min", 1.0), (torch.min, 1.0), (min, 1.0), ("max", 3.0), (torch.max, 3.0), (max, 3.0)),
    ],
)
@pytest.mark.parametrize(
    "hook", ["training_step", "on_train_batch_end", "validation_step", "on_validation_batch_start"]
)
def test_reductions_over_the_epoch(tmp_path, hook, reduce_fx, value):
    trainer = run(tmp_path, "fit", "module", hook, on_step=False, on_epoch=True, reduce_fx=reduce_fx)
    assert numbers(trainer.callback_metrics) == {"a": value}


@pytest.mark.parametrize("reduce_fx", ["median", torch.median, None, 3, lambda values: values])
@pytest.mark.parametrize("hook", ["training_step", "on_train_epoch_end", "validation_step"])
def test_other_reductions_are_refused(tmp_path, hook, reduce_fx):
    with pytest.raises(MisconfigurationException, match=r"Only `self.log\(..., reduce_fx={min,max,mean,sum}\)`"):
        run(tmp_path, "fit", "module", hook, reduce_fx=reduce_fx)
