"""The order of all hooks with their arguments, as users of the reference know it."""

import functools

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
DATA_HOOKS = ["prepare_data", "setup", "teardown", "state_dict", "load_state_dict", "on_exception"]
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


def record(tmp_path, verb, step_hooks=(), model_class=Model, data_class=Data, ckpt_path=None, events=None, **flags):
    events = [] if events is None else events
    model = recording(model_class, [*MODULE_HOOKS, *step_hooks], "M", events)()
    data = recording(data_class, DATA_HOOKS, "D", events)()
    callback = recording(L.Callback, CALLBACK_HOOKS, "C", events)()
    trainer = L.Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        **{"max_epochs": 1, **flags},
    )
    getattr(trainer, verb)(model, datamodule=data, ckpt_path=ckpt_path)
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
        f"D.setup(stage='{stage}')",
        f"C.setup(stage='{stage}')",
        f"M.setup(stage='{stage}')",
        "M.configure_model()",
    ]


def end(stage):
    return [f"D.teardown(stage='{stage}')", f"C.teardown(stage='{stage}')", f"M.teardown(stage='{stage}')"]


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


def test_validation_inside_the_epoch_clears_gradients_only_between_windows(tmp_path):
    got = record(
        tmp_path,
        "fit",
        num_sanity_val_steps=0,
        limit_val_batches=1,
        val_check_interval=1,
        accumulate_grad_batches=2,
        enable_checkpointing=False,
    )
    assert got == [
        *begin("fit"),
        "M.configure_optimizers()",
        *both("on_fit_start()"),
        "D.train_dataloader()",
        "D.val_dataloader()",
        *both("on_train_start()"),
        *both("on_train_epoch_start()"),
        *train_batch(0, closes=False),
        *evaluation("validation", 1),
        *train_batch(1, opens=False),
        "M.on_validation_model_zero_grad()",
        *evaluation("validation", 1),
        *train_batch(2, last=True),
        "M.on_validation_model_zero_grad()",
        *evaluation("validation", 1),
        *both("on_train_epoch_end()"),
        *both("on_train_end()"),
        *both("on_fit_end()"),
        *end("fit"),
    ]


class SavesTheSecondBatch(L.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            trainer.save_checkpoint(self.path)


def test_resuming_in_the_middle_of_an_epoch_goes_on_with_the_next_batch(tmp_path):
    off = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "enable_checkpointing": False}
    path = tmp_path / "half.ckpt"
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "max_epochs": 1}
    L.Trainer(callbacks=[SavesTheSecondBatch(path)], **quiet, **off).fit(Model(), Data())
    assert record(tmp_path, "fit", ckpt_path=path, **off) == [
        *begin("fit"),
        *("M.on_load_checkpoint(dict)", "C.on_load_checkpoint(dict)"),
        "M.configure_optimizers()",
        *both("on_fit_start()"),
        "D.train_dataloader()",
        *both("on_train_start()"),
        *train_batch(2, last=True),
        *both("on_train_epoch_end()"),
        *both("on_train_end()"),
        *both("on_fit_end()"),
        *end("fit"),
    ]


class Manual(Model):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()
        return loss


def test_manual_optimization(tmp_path):
    expected = [
        *begin("fit"),
        "M.configure_optimizers()",
        *both("on_fit_start()"),
        "D.train_dataloader()",
        *both("on_train_start()"),
        *both("on_train_epoch_start()"),
    ]
    for i in range(3):
        expected += [
            *transfer(),
            *both(f"on_train_batch_start(T, {i})"),
            f"M.training_step(T, {i})",
            *both("on_before_backward(T)"),
            "M.backward(T)",
            *both("on_after_backward()"),
            *both("on_before_optimizer_step(SGD)"),
            *both(f"on_train_batch_end(dict, T, {i})"),
        ]
    expected += [*both("on_train_epoch_end()"), *both("on_train_end()"), *both("on_fit_end()"), *end("fit")]
    off = {"num_sanity_val_steps": 0, "limit_val_batches": 0, "enable_checkpointing": False}
    assert record(tmp_path, "fit", STEP_HOOKS, Manual, **off) == expected


def test_several_loaders_are_told_apart_by_a_last_argument(tmp_path):
    class Two(Data):
        def predict_dataloader(self):
            return [self.train_dataloader(), self.train_dataloader()]

    def batch(i, loader):
        return [
            *transfer(loader),
            *both(f"on_predict_batch_start(T, {i}, {loader})"),
            f"M.predict_step(T, {i}, {loader})",
            *both(f"on_predict_batch_end(T, T, {i}, {loader})"),
        ]

    got = record(tmp_path, "predict", data_class=Two, limit_predict_batches=2)
    first = got.index("M.on_predict_model_eval()")
    assert got[first:] == [
        "M.on_predict_model_eval()",
        *both("on_predict_start()"),
        *both("on_predict_epoch_start()"),
        *batch(0, 0),
        *batch(1, 0),
        *batch(0, 1),
        *batch(1, 1),
        *both("on_predict_epoch_end()"),
        *both("on_predict_end()"),
        *end("predict"),
    ]


def test_a_callbacks_answer_does_not_end_the_epoch(tmp_path):
    """Only the module is asked whether to skip the rest of an epoch."""

    class Skipping(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            return -1

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(default_root_dir=tmp_path, logger=False, max_epochs=1, callbacks=[Skipping()], **quiet)
    trainer.fit(Model(), Data())
    assert trainer.global_step == 3


def test_a_wrapper_around_the_default_replaces_nothing(tmp_path):
    """Modes of submodules are restored one by one unless the module says otherwise."""
    model = Model()
    model.frozen = torch.nn.Dropout().eval()
    model.on_validation_model_train = functools.wraps(model.on_validation_model_train)(
        functools.partial(model.on_validation_model_train)
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(default_root_dir=tmp_path, logger=False, max_epochs=1, **quiet)
    trainer.validate(model, Data(), verbose=False)
    assert model.training
    assert not model.frozen.training


def test_the_nested_step_of_overridden_hooks_keeps_the_order(tmp_path):
    got = record(tmp_path, "fit", STEP_HOOKS, num_sanity_val_steps=0, limit_val_batches=0, gradient_clip_val=1.0)
    first = got.index("M.optimizer_step(0, 0, LightningSGD, function)")
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
    plain = record(tmp_path / "plain", "fit", num_sanity_val_steps=0, limit_val_batches=0, gradient_clip_val=1.0)
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
        def on_before_backward(self, loss):
            raise ValueError("from the user's hook")

    events = []
    with pytest.raises(ValueError, match="from the user's hook"):
        record(tmp_path, "fit", model_class=Failing, events=events, num_sanity_val_steps=0, limit_val_batches=0)
    assert events == [
        *begin("fit"),
        "M.configure_optimizers()",
        *both("on_fit_start()"),
        "D.train_dataloader()",
        *both("on_train_start()"),
        *both("on_train_epoch_start()"),
        *transfer(),
        *both("on_train_batch_start(T, 0)"),
        "M.training_step(T, 0)",
        *both("on_before_zero_grad(SGD)"),
        *both("on_before_backward(T)"),
        *("C.on_exception(ValueError)", "D.on_exception(ValueError)"),
        *end("fit"),
    ]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_after_an_exception_in_evaluation_too(tmp_path, verb):
    class Failing(Model):
        def on_validation_epoch_start(self):
            raise ValueError("from the user's hook")

        on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    events = []
    with pytest.raises(ValueError, match="from the user's hook"):
        record(tmp_path, verb, model_class=Failing, events=events)
    assert events[-5:] == ["C.on_exception(ValueError)", "D.on_exception(ValueError)", *end(verb)]
