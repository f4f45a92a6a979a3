"""Wrong input of the main path: one clear error that names what is wrong, and nothing left behind."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import leyden.core as L
from leyden.core.errors import CheckpointError, LeydenError, MisconfigurationException, PossibleUserWarning


@pytest.fixture
def ordinary(tmp_path):
    """Make a trainer with everything that writes files: logger and checkpoints."""

    def make(**flags):
        silent = {"enable_progress_bar": False, "enable_model_summary": False}
        return L.Trainer(**{"default_root_dir": tmp_path, "logger": "csv", "max_epochs": 1, **silent, **flags})

    return make


def nothing_in(folder):
    return list(folder.rglob("*")) == []


# -- the module --------------------------------------------------------------------------------------------------------


class NoStep(L.LightningModule):
    def configure_optimizers(self):
        return None


class NoOptimizers(L.LightningModule):
    def training_step(self, batch, batch_idx):
        return torch.zeros(1, requires_grad=True).sum()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (NoStep(), MisconfigurationException, r"No `training_step\(\)` method defined in NoStep.*expects as minimum"),
        (NoOptimizers(), MisconfigurationException, r"No `configure_optimizers\(\)` method defined in NoOptimizers"),
        (torch.nn.Linear(1, 1), TypeError, r"`model` must be a `LightningModule`, got `Linear`"),
        (NoStep, TypeError, r"`model` must be a `LightningModule`, got `type`"),
        (None, TypeError, r"`model` must be a `LightningModule`"),
    ],
    ids=["no training_step", "no configure_optimizers", "plain module", "class", "none"],
)
def test_a_module_that_can_not_be_trained(ordinary, numbers, tmp_path, model, error, message):
    with pytest.raises(error, match=message):
        ordinary().fit(model, numbers())
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("validate", r"No `validation_step\(\)` method defined to run `Trainer\.validate`"),
        ("test", r"No `test_step\(\)` method defined to run `Trainer\.test`"),
        ("predict", r"`Trainer\.predict` requires `forward` method"),
    ],
)
def test_a_module_without_the_step_of_a_verb(ordinary, tiny, numbers, tmp_path, verb, message):
    with pytest.raises(MisconfigurationException, match=message):
        getattr(ordinary(), verb)(tiny(), numbers())
    assert nothing_in(tmp_path)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_a_verb_without_a_model_before_any_run(ordinary, verb):
    with pytest.raises(TypeError, match=rf"`Trainer\.{verb}\(\)` requires a `LightningModule`"):
        getattr(ordinary(), verb)()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("0.5", r"`training_step` must return a Tensor, a dict, or None.*got str: '0\.5'"),
        (0.5, r"got float: 0\.5"),
        ([torch.zeros(1)], r"got list"),
        ({"los": torch.zeros(1)}, r"the 'loss' key needs to be present; got the keys \['los'\]"),
        ({}, r"the 'loss' key needs to be present"),
        ({"loss": 0.5}, r"the 'loss' that `training_step` returned must be a tensor; got float: 0\.5"),
        ({"loss": "x"}, r"must be a tensor; got str"),
    ],
)
def test_a_step_that_returns_no_loss(quiet, tiny, numbers, output, message):
    class Wrong(tiny):
        def training_step(self, batch, batch_idx):
            return output

    with pytest.raises(MisconfigurationException, match=message):
        quiet().fit(Wrong(), numbers())


def test_a_manual_step_that_returns_nonsense(quiet, tiny, numbers):
    class Wrong(tiny):
        def training_step(self, batch, batch_idx):
            self.automatic_optimization = False
            return "done"

    model = Wrong()
    model.automatic_optimization = False
    with pytest.raises(
        MisconfigurationException, match=r"In manual optimization, `training_step` must.*got str: 'done'"
    ):
        quiet().fit(model, numbers())


def test_clipping_by_flag_does_not_go_with_manual_optimization(quiet, tiny, numbers):
    model = tiny()
    model.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match=r"`Trainer\(gradient_clip_val=0\.5\)`|gradient_clip_val=0\.5"):
        quiet(gradient_clip_val=0.5).fit(model, numbers())


# -- the data ----------------------------------------------------------------------------------------------------------


def test_no_training_data(ordinary, tiny, tmp_path):
    with pytest.raises(
        MisconfigurationException,
        match=r"invalid dataloader was passed to `Trainer.fit\(train_dataloaders=...\)`. Found None",
    ):
        ordinary().fit(tiny())
    with pytest.raises(MisconfigurationException, match="Found None"):
        ordinary().fit(tiny(), datamodule=L.LightningDataModule())
    assert nothing_in(tmp_path)


class EmptyStream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    "data",
    [
        lambda: DataLoader(TensorDataset(torch.zeros(0, 1))),
        lambda: DataLoader(TensorDataset(torch.zeros(3, 1)), batch_size=4, drop_last=True),
        list,
        lambda: (i for i in ()),
        lambda: DataLoader(EmptyStream()),
    ],
    ids=["empty", "drop_last", "empty list", "generator", "stream"],
)
def test_training_data_without_a_batch(quiet, tiny, data):
    with pytest.raises(MisconfigurationException, match=r"the train dataloader \(\w+\) yields no batch"):
        quiet().fit(tiny(), data())


def test_validation_data_without_a_batch(quiet, tiny, numbers):
    class Validated(tiny):
        def validation_step(self, batch, batch_idx): ...

    with pytest.raises(MisconfigurationException, match=r"a validation dataloader .* has length 0: it yields no batch"):
        quiet().fit(Validated(), numbers(), DataLoader(TensorDataset(torch.zeros(0, 1))))


@pytest.mark.parametrize("data", [3, "batches", object(), b"x"], ids=repr)
def test_training_data_that_are_none(quiet, tiny, data):
    with pytest.raises(MisconfigurationException, match=r"`Trainer\.fit\(train_dataloaders=\.\.\.\)`. Found"):
        quiet().fit(tiny(), data)


@pytest.mark.parametrize("returned", [None, 3])
def test_a_hook_that_returns_no_loader(quiet, tiny, returned):
    class Wrong(tiny):
        def train_dataloader(self):
            return returned

    with pytest.raises(MisconfigurationException, match=r"returned from `.*Wrong\.train_dataloader\(\)`. Found"):
        quiet().fit(Wrong())


def test_other_loaders_that_are_none(quiet, tiny, numbers):
    class Evaluated(tiny):
        def validation_step(self, batch, batch_idx): ...

        test_step = validation_step

    with pytest.raises(MisconfigurationException, match=r"`Trainer\.fit\(val_dataloaders=\.\.\.\)`.*Found 3"):
        quiet().fit(Evaluated(), numbers(), 3)
    with pytest.raises(MisconfigurationException, match=r"`Trainer\.test\(dataloaders=\.\.\.\)`. Found 3"):
        quiet().test(Evaluated(), 3)
    with pytest.raises(MisconfigurationException, match=r"`Trainer\.validate\(dataloaders=\.\.\.\)`.*Found 3"):
        quiet().validate(Evaluated(), 3)


def test_several_evaluation_loaders_need_a_step_that_tells_them_apart(quiet, tiny, numbers):
    class Evaluated(tiny):
        def validation_step(self, batch, batch_idx): ...

        test_step = predict_step = validation_step

    for verb in ("validate", "test", "predict"):
        with pytest.raises(MisconfigurationException, match=r"multiple `\w+`.*Try adding `dataloader_idx=0`"):
            getattr(quiet(), verb)(Evaluated(), [numbers(), numbers()])
    with pytest.raises(MisconfigurationException, match=r"multiple `\w+`.*Evaluated\.validation_step\(\)"):
        quiet().fit(Evaluated(), numbers(), {"a": numbers(), "b": numbers()})


def test_what_is_half_there_is_pointed_out(quiet, tiny, numbers):
    class Validated(tiny):
        def validation_step(self, batch, batch_idx): ...

    with pytest.warns(PossibleUserWarning, match="LY-T002.*no `validation_step`. Skipping val loop"):
        quiet().fit(tiny(), numbers(), numbers())
    with pytest.warns(PossibleUserWarning, match="LY-T003.*no `val_dataloader`. Skipping val loop"):
        quiet().fit(Validated(), numbers())


def test_data_and_a_data_module_at_once(ordinary, tiny, numbers, tmp_path):
    with pytest.raises(MisconfigurationException, match="cannot pass dataloaders and a `datamodule`"):
        ordinary().fit(tiny(), numbers(), datamodule=L.LightningDataModule())
    assert nothing_in(tmp_path)


# -- the trainer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"logger": "wandbb"}, r"logger must be one of .*csv.*got 'wandbb'"),
        ({"logger": 3}, r"`logger` must be True, False, a logger, the short name of one, or several; got 3"),
        ({"logger": object()}, r"`logger` must be True, False, a logger"),
        ({"logger": [True]}, r"`logger` must be .*got True"),
        ({"logger": ["csv", 3]}, r"`logger` must be .*got 3"),
        ({"logger": L.loggers.CSVLogger}, r"`logger` must be .*got <class"),
        ({"callbacks": [3]}, r"`callbacks` must be callbacks; got 3"),
        ({"callbacks": 3}, r"`callbacks` must be callbacks; got 3"),
        ({"callbacks": L.callbacks.ModelCheckpoint}, r"`callbacks` must be callbacks; got <class"),
        ({"callbacks": [L.callbacks.EarlyStopping]}, r"`callbacks` must be callbacks; got <class"),
        ({"default_root_dir": 3}, r"`default_root_dir` must be a path; got 3"),
        ({"deterministic": "yes"}, r"`deterministic` must be True, False or 'warn'; got 'yes'"),
    ],
    ids=lambda v: "" if isinstance(v, str) else str(v)[:50],
)
def test_what_the_trainer_is_given(ordinary, tmp_path, flags, message):
    with pytest.raises(MisconfigurationException, match=message):
        ordinary(**flags)
    assert nothing_in(tmp_path)


def test_checkpoints_that_were_refused_and_given(ordinary):
    with pytest.raises(MisconfigurationException, match="`enable_checkpointing=False` but found `ModelCheckpoint`"):
        ordinary(enable_checkpointing=False, callbacks=L.callbacks.ModelCheckpoint())


def test_two_callbacks_whose_states_would_overwrite_each_other(ordinary):
    class Counter(L.Callback):
        def state_dict(self):
            return {"count": 1}

    for make in (Counter, lambda: L.callbacks.EarlyStopping("x"), lambda: L.callbacks.ModelCheckpoint()):
        with pytest.raises(MisconfigurationException, match="more than one stateful callback of type"):
            ordinary(callbacks=[make(), make()])
    ordinary(callbacks=[L.callbacks.EarlyStopping("x"), L.callbacks.EarlyStopping("y")])


@pytest.mark.parametrize("logger", [False, "csv"])
def test_an_output_folder_that_can_not_be_made(ordinary, tiny, numbers, tmp_path, logger):
    taken = tmp_path / "a file"
    taken.write_text("kept")
    steps = []

    class Noting(tiny):
        def training_step(self, batch, batch_idx):
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    with pytest.raises(LeydenError, match=rf"{taken}.*can not be made") as raised:
        ordinary(default_root_dir=taken / "below", logger=logger).fit(Noting(), numbers())
    assert "default_root_dir" in str(raised.value) or "save_dir" in str(raised.value)
    assert steps == [], "it is said before the training, not after its first epoch"
    assert taken.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [taken]


def test_a_checkpoint_folder_that_can_not_be_made(ordinary, tiny, numbers, tmp_path):
    taken = tmp_path / "a file"
    taken.write_text("kept")
    saver = L.callbacks.ModelCheckpoint(dirpath=taken / "below")
    with pytest.raises(MisconfigurationException, match=r"checkpoint folder .*below can not be made.*dirpath"):
        ordinary(logger=False, callbacks=saver).fit(tiny(), numbers())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nowhere.ckpt", FileNotFoundError, "Checkpoint file not found: nowhere.ckpt.*ckpt_path='auto'"),
        (
            3,
            MisconfigurationException,
            r"must be a path or one of \('best', 'last', 'auto', 'hpc'\); got 3",
        ),
        ("best", LeydenError, r'ckpt_path="best"\)` is set but'),
    ],
)
def test_a_checkpoint_that_is_not_there(quiet, tiny, numbers, given, error, message):
    with pytest.raises(error, match=message):
        quiet().fit(tiny(), numbers(), ckpt_path=given)


@pytest.mark.parametrize("value", [b"", [{"deep": b""}], 2**3000, {2**3000: 1}], ids=["bytes", "deep", "int", "key"])
def test_a_state_that_torch_writes_and_does_not_read_is_refused_when_it_is_saved(quiet, tiny, numbers, tmp_path, value):
    class Keeper(L.Callback):
        def state_dict(self):
            return {"value": value}

    trainer = quiet(callbacks=Keeper())
    trainer.fit(tiny(), numbers())
    with pytest.raises(CheckpointError, match=r"checkpoint\['callbacks'\].*\['value'\].*does not read"):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert nothing_in(tmp_path)


def test_saving_before_there_is_anything_to_save(quiet, tmp_path):
    with pytest.raises(AttributeError, match="only possible if a model is attached to the Trainer"):
        quiet().save_checkpoint(tmp_path / "a.ckpt")


def test_a_trainer_goes_on_after_an_error(quiet, tiny, numbers):
    trainer = quiet()
    with pytest.raises(MisconfigurationException):
        trainer.fit(NoStep(), numbers())
    trainer.fit(tiny(), numbers())
    assert (trainer.current_epoch, trainer.state.status) == (1, "finished")


# -- self.log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("0.5", ValueError, r"`self\.log\(x, 0\.5\)` was called, but `str` values cannot be logged"),
        (None, ValueError, "`NoneType` values cannot be logged"),
        ([1.0], ValueError, "`list` values cannot be logged"),
        ({"a": 1}, ValueError, "nested dictionaries cannot be logged"),
        (torch.zeros(2), ValueError, r"the tensor must have a single element.*\.mean\(\)"),
        (torch.zeros(0), ValueError, "the tensor must have a single element"),
    ],
    ids=["text", "none", "list", "dict", "vector", "empty"],
)
def test_values_that_are_no_number(quiet, tiny, numbers, value, error, message):
    class Logging(tiny):
        def training_step(self, batch, batch_idx):
            self.log("x", value)
            return super().training_step(batch, batch_idx)

    with pytest.raises(error, match=message):
        quiet().fit(Logging(), numbers())


@pytest.mark.parametrize("calls", [[("x", {}), ("x", {"prog_bar": True})], [("x", {}), ("x", {"on_epoch": True})]])
def test_one_name_with_two_meanings(quiet, tiny, numbers, calls):
    class Logging(tiny):
        def training_step(self, batch, batch_idx):
            for name, flags in calls:
                self.log(name, 1.0, **flags)
            return super().training_step(batch, batch_idx)

    with pytest.raises(
        MisconfigurationException, match=r"`self\.log\(x, \.\.\.\)` twice in `training_step` with different"
    ):
        quiet().fit(Logging(), numbers())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", 1.0, {"reduce_fx": "median"}), "reduce_fx={min,max,mean,sum}.*Found: median"),
        (("x", 1.0, {"on_step": False, "on_epoch": False}), "is not useful"),
        (("x/dataloader_idx_0", 1.0, {}), "should not contain information like `/dataloader_idx_`"),
        ((3, 1.0, {}), "takes a str as the name of a value; got 3"),
    ],
)
def test_arguments_of_log(quiet, tiny, numbers, arguments, message):
    name, value, flags = arguments

    class Logging(tiny):
        def training_step(self, batch, batch_idx):
            self.log(name, value, **flags)
            return super().training_step(batch, batch_idx)

    with pytest.raises(MisconfigurationException, match=message):
        quiet().fit(Logging(), numbers())


FORBIDDEN = [
    "setup", "teardown", "configure_model", "configure_optimizers", "configure_callbacks", "on_fit_start", "on_fit_end",
    "on_train_end", "on_validation_end", "on_validation_model_eval", "on_save_checkpoint", "lr_scheduler_step",
    "on_before_batch_transfer", "train_dataloader", "prepare_data",
]  # fmt: skip


@pytest.mark.parametrize("hook", FORBIDDEN)
def test_hooks_that_do_not_log(quiet, tiny, numbers, hook, tmp_path):
    class Logging(tiny):
        def validation_step(self, batch, batch_idx): ...

        def train_dataloader(self):
            return numbers()

        def val_dataloader(self):
            return numbers()

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def logging(self, *args, **kwargs):
        self.log("x", 1.0)
        return getattr(super(Logging, self), hook)(*args, **kwargs)

    setattr(Logging, hook, logging)
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "files")
    with pytest.raises(
        MisconfigurationException, match=rf"inside `({hook}|transfer_batch_to_device)`|not managed by the `Trainer`"
    ):
        quiet(enable_checkpointing=True, callbacks=saver).fit(Logging(), None)


@pytest.mark.parametrize("hook", ["on_predict_start", "on_predict_batch_start", "predict_step", "on_predict_epoch_end"])
def test_prediction_does_not_log(quiet, tiny, numbers, hook):
    class Logging(tiny):
        def predict_step(self, batch, batch_idx): ...

    def logging(self, *args):
        self.log("x", 1.0)

    setattr(Logging, hook, logging)
    with pytest.raises(MisconfigurationException, match="`predict` hook, but it doesn't support logging"):
        quiet().predict(Logging(), numbers())


@pytest.mark.parametrize(
    "hook", ["on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_validation_epoch_end"]
)
def test_hooks_of_epochs_log_no_steps(quiet, tiny, numbers, hook):
    class Logging(tiny):
        def validation_step(self, batch, batch_idx): ...

    setattr(Logging, hook, lambda self: self.log("x", 1.0, on_step=True))
    with pytest.raises(MisconfigurationException, match=rf"`self\.log\(on_step=True\)` inside `{hook}`"):
        quiet().fit(Logging(), numbers(), numbers())


def test_logging_outside_of_a_run_is_pointed_out(tiny):
    model = tiny()
    with pytest.warns(UserWarning, match=r"LY-B001.*hasn't been passed to the `Trainer`"):
        model.log("x", 1.0)
