"""The order of all hooks with their arguments, as users of the reference know it."""

import pytest
import torch
from torch.utils.data import DataLoader

import leyden.core as L

CALLBACK_HOOKS = [name for name in vars(L.Callback) if not name.startswith("_") and callable(getattr(L.Callback, name))]
MODULE_HOOKS = [
    *(n for n in CALLBACK_HOOKS if n not in ("state_dict", "load_state_dict", "on_exception")),
    *("prepare_data", "configure_model", "configure_optimizers", "configure_callbacks", "lr_scheduler_step"),
    *("on_validation_model_eval", "on_validation_model_train", "on_validation_model_zero_grad", "on_test_model_eval"),
    *("on_test_model_train", "on_predict_model_eval", "on_before_batch_transfer", "transfer_batch_to_device"),
    *("on_after_batch_transfer", "training_step", "validation_step", "test_step", "predict_step"),
]
STEP_HOOKS = ["configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad", "backward"]
DATA_HOOKS = ["prepare_data", "setup", "teardown", "state_dict", "on_exception"]
DATA_HOOKS += [f"{kind}_dataloader" for kind in ("train", "val", "test", "predict")]


def describe(value):
    if isinstance(value, torch.Tensor):
        return "T"
    return repr(value) if isinstance(value, (int, float, str)) or value is None else type(value).__name__


def recording(base, hooks, tag, events):
    """Return a subclass of ``base`` whose ``hooks`` note their calls."""
    cls = type(base.__name__, (base,), {})

    def make(name):
        def hook(self, *args, **kwargs):
            shown = [describe(a) for a in args if not isinstance(a, (L.Trainer, L.LightningModule))]
            shown += [f"{k}={describe(v)}" for k, v in kwargs.items()]
            events.append(f"{tag}.{name}({', '.join(shown)})")
            return getattr(super(cls, self), name)(*args, **kwargs)

        return hook

    for name in hooks:
        if hasattr(base, name):
            setattr(cls, name, make(name))
    return cls


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("v", self.layer(batch).sum())

    def test_step(self, batch, batch_idx):
        self.log("t", self.layer(batch).sum())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.randn(6, 4), batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def record(tmp_path, verb, step_hooks=(), model_class=Model, **flags):
    events = []
    model = recording(model_class, [*MODULE_HOOKS, *step_hooks], "M", events)()
    data = recording(Data, DATA_HOOKS, "D", events)()
    callback = recording(L.Callback, CALLBACK_HOOKS, "C", events)()
    trainer = L.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        **{"max_epochs": 1, **flags},
    )
    getattr(trainer, verb)(model, datamodule=data)
    return events


def transfer(index=0):
    return [
        f"M.on_before_batch_transfer(T, {index})",
        f"M.transfer_batch_to_device(T, device, {index})",
        f"M.on_after_batch_transfer(T, {index})",
    ]


def both(call):
    return [f"C.{call}", f"M.{call}"]


def begin(stage):
    return [
        "M.configure_callbacks()",
        "D.prepare_data()",
        "M.prepare_data()",
        f"D.setup('{stage}')",
        f"C.setup('{stage}')",
        f"M.setup('{stage}')",
        "M.configure_model()",
    ]


def end(stage):
    return [f"D.teardown('{stage}')", f"C.teardown('{stage}')", f"M.teardown('{stage}')"]


def evaluation(stage, batches, restore=True):
    lines = [f"M.on_{stage}_model_eval()", *both(f"on_{stage}_start()"), *both(f"on_{stage}_epoch_start()")]
    for i in range(batches):
        lines += transfer() if restore else []
        lines += both(f"on_{stage}_batch_start(T, {i})")
        lines += [f"M.{'validation' if stage == 'validation' else stage}_step(T, {i})"]
        output = "T" if stage == "predict" else "None"
        lines += both(f"on_{stage}_batch_end({output}, T, {i})")
    lines += [*both(f"on_{stage}_epoch_end()"), *both(f"on_{stage}_end()")]
    return lines + ([f"M.on_{stage}_model_train()"] if stage != "predict" else [])


def train_batch(i, *, epoch=0, opens=True, closes=True, last=False):
    lines = [*transfer(), *both(f"on_train_batch_start(T, {i})"), f"M.training_step(T, {i})"]
    lines += both("on_before_zero_grad(SGD)") if opens else []
    lines += [*both("on_before_backward(T)"), *both("on_after_backward()")]
    lines += both("on_before_optimizer_step(SGD)") if closes else []
    lines += ["M.lr_scheduler_step(StepLR, None)"] if last else []
    return lines + both(f"on_train_batch_end(dict, T, {i})")


def save():
    return ["C.state_dict()", "D.state_dict()", "C.on_save_checkpoint(dict)", "M.on_save_checkpoint(dict)"]


def test_fit_with_sanity_check_validation_and_accumulation(tmp_path):
    expected = [
        *begin("fit"),
        "M.configure_optimizers()",
        *both("on_fit_start()"),
        "C.on_sanity_check_start()",
        "D.val_dataloader()",
        *evaluation("validation", 1),
        "C.on_sanity_check_end()",
        "D.train_dataloader()",
        *both("on_train_start()"),
    ]
    for epoch in range(2):
        expected += both("on_train_epoch_start()")
        expected += train_batch(0, epoch=epoch, closes=False)
        expected += train_batch(1, epoch=epoch, opens=False)
        expected += train_batch(2, epoch=epoch, last=True)
        expected += ["M.on_validation_model_zero_grad()", *evaluation("validation", 3)]
        expected += [*both("on_train_epoch_end()"), *save()]
    expected += [*both("on_train_end()"), *both("on_fit_end()"), *end("fit")]
    got = record(tmp_path, "fit", max_epochs=2, num_sanity_val_steps=1, accumulate_grad_batches=2)
    assert got == expected


def test_the_nested_step_of_overridden_hooks_keeps_the_order(tmp_path):
    got = record(tmp_path, "fit", STEP_HOOKS, num_sanity_val_steps=0, limit_val_batches=0, gradient_clip_val=1.0)
    first = got.index("M.optimizer_step(0, 0, LightningOptimizer, function)")
    assert got[first + 1 : first + 14] == [
        "M.training_step(T, 0)",
        *both("on_before_zero_grad(SGD)"),
        "M.optimizer_zero_grad(0, 0, SGD)",
        *both("on_before_backward(T)"),
        "M.backward(T)",
        *both("on_after_backward()"),
        *both("on_before_optimizer_step(SGD)"),
        "M.configure_gradient_clipping(SGD, gradient_clip_val=1.0, gradient_clip_algorithm=None)",
        "C.on_train_batch_end(dict, T, 0)",
    ]
    plain = record(tmp_path, "fit", num_sanity_val_steps=0, limit_val_batches=0, gradient_clip_val=1.0)
    own = tuple(f"M.{name}(" for name in STEP_HOOKS)
    assert [event for event in got if not event.startswith(own)] == plain


@pytest.mark.parametrize(
    ("verb", "stage", "kind"),
    [("validate", "validation", "val"), ("test", "test", "test"), ("predict", "predict", "predict")],
)
def test_evaluation_verbs(tmp_path, verb, stage, kind):
    expected = [*begin(verb), f"D.{kind}_dataloader()", *evaluation(stage, 3), *end(verb)]
    assert record(tmp_path, verb) == expected


def test_after_an_exception_everybody_is_told_and_torn_down(tmp_path):
    class Failing(Model):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            raise ValueError("from the user's hook")

    events = []
    model = recording(Failing, ["teardown"], "M", events)()
    data = recording(Data, ["teardown", "on_exception"], "D", events)()
    callback = recording(L.Callback, ["on_exception", "teardown"], "C", events)()
    trainer = L.Trainer(
        logger=False,
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
    )
    with pytest.raises(ValueError, match="from the user's hook"):
        trainer.fit(model, datamodule=data)
    told = ["C.on_exception(ValueError)", "D.on_exception(ValueError)"]
    assert events == [*told, "D.teardown('fit')", "C.teardown('fit')", "M.teardown('fit')"]
    assert trainer.state.status == "interrupted"
