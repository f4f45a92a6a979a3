"""Loggers, progress bars and monitors watch a run: what goes wrong in them is told, and ends no training."""

import os
import resource
import signal
import subprocess
import sys
import warnings

import pytest
import torch

import leyden.core as L
from leyden.core.callbacks import LearningRateMonitor, ModelCheckpoint, ModelSummary, ProgressBar
from leyden.core.errors import Interrupted, LeydenWarning, LoggerError, MisconfigurationException
from leyden.core.loggers import CSVLogger, Logger

pytestmark = pytest.mark.usefixtures("_lenient")


class Table(Logger):
    """Keeps what it gets; a method of its own stands in ``broken`` with what it does instead."""

    name, version = "table", 0

    def __init__(self, **broken):
        self.rows, self.calls, self.broken = [], [], broken

    def _do(self, method):
        self.calls.append(method)
        if method in self.broken:
            self.broken[method](self.calls.count(method))

    @property
    def experiment(self):
        return self._do("experiment")

    def log_metrics(self, metrics, step=None):
        self._do("log_metrics")
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, metrics=None):
        self._do("log_hyperparams")

    def log_graph(self, model, input_array=None):
        self._do("log_graph")

    def save(self):
        self._do("save")

    def finalize(self, status):
        self._do("finalize")
        self.status = status

    def after_save_checkpoint(self, checkpoint_callback):
        self._do("after_save_checkpoint")


def fails(error=None, when=lambda call: True):
    """Return what raises at some of the calls, counted from 1."""
    error = error or RuntimeError("out of ink")

    def act(call):
        if when(call):
            raise error

    return act


@pytest.fixture
def model(tiny):
    class Logged(tiny):
        def __init__(self, rate=1e-3):
            super().__init__()
            self.save_hyperparameters()

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

    return Logged


@pytest.fixture
def train(quiet, numbers, model):
    """Fit a module; returns the trainer and the codes of the warnings with their texts."""

    def run(module=None, **flags):
        trainer = flags.pop("trainer", None) or quiet(**{"log_every_n_steps": 1, "max_epochs": 2, **flags})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(module or model(), numbers(16))
        told = [w.message for w in caught if issubclass(w.category, LeydenWarning) and w.message.code[:4] == "LY-W"]
        return trainer, [(warning.code, str(warning)) for warning in told]

    return run


def codes(told):
    return [code for code, _ in told]


def test_a_logger_that_always_fails_is_told_of_and_switched_off(train, tmp_path):
    def run(name, logger):
        saver = ModelCheckpoint(dirpath=tmp_path / name, every_n_train_steps=4, save_top_k=-1)
        trainer, told = train(logger=logger, callbacks=[saver], enable_checkpointing=None)
        return trainer, told, sorted(path.name for path in (tmp_path / name).iterdir())

    plain, none, files = run("without", False)
    logger = Table(log_metrics=fails())
    trainer, told, same = run("with", logger)
    assert none == []
    assert same == files
    assert len(files) == 4
    assert torch.equal(trainer.lightning_module.weight, plain.lightning_module.weight)
    assert codes(told) == ["LY-W001", "LY-W002"]
    assert "logger `Table` failed in `log_metrics`" in told[0][1]
    assert "RuntimeError: out of ink" in told[0][1]
    assert all("Trainer(strict=True)" in text for _, text in told)
    assert "switched off" in told[1][1]
    assert logger.calls.count("log_metrics") == 3
    assert logger.status == "success"  # it may hold files and connections


def test_a_logger_that_fails_now_and_then_goes_on(train):
    logger = Table(log_metrics=fails(when=lambda call: call % 3))
    trainer, told = train(logger=logger)
    assert codes(told) == ["LY-W001", "LY-W003"]
    assert "failed 11 times" in told[1][1]
    assert [step for step, _ in logger.rows] == [2, 5, 8, 11, 14]
    assert trainer.global_step == 16


def test_a_single_failure_is_one_warning(train):
    _, told = train(logger=Table(log_metrics=fails(when=lambda call: call == 5)))
    assert codes(told) == ["LY-W001"]


def test_two_hooks_that_fail_in_turn_fail_in_a_row(train):
    logger = Table(log_metrics=fails(), log_graph=fails(), save=fails())
    _, told = train(logger=logger)
    assert codes(told) == ["LY-W001", "LY-W002"]
    assert logger.calls == ["experiment", "log_hyperparams", "log_graph", "save", "log_metrics", "finalize"]


def test_a_hook_that_always_fails_is_found_between_others_that_do_not(train, tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1)
    logger = Table(after_save_checkpoint=fails())
    _, told = train(logger=logger, callbacks=[saver], enable_checkpointing=None)
    assert codes(told) == ["LY-W001", "LY-W002"]
    assert logger.calls.count("after_save_checkpoint") == 3
    assert len(list(tmp_path.glob("*.ckpt"))) == 1


@pytest.mark.parametrize("hook", ["log_hyperparams", "log_graph", "save", "finalize"])
def test_a_failure_elsewhere_costs_no_row(hook, train):
    logger = Table(**{hook: fails()})
    trainer, told = train(logger=logger)
    assert codes(told) == ["LY-W001"]
    assert f"failed in `{hook}`" in told[0][1]
    assert len(logger.rows) == 16
    assert trainer.state.status == "finished"


def test_the_other_logger_has_every_row(train):
    first, broken, last = Table(), Table(log_metrics=fails(), log_hyperparams=fails(), finalize=fails()), Table()
    train(logger=[first, broken, last])
    assert [step for step, _ in first.rows] == list(range(16))
    assert first.rows == last.rows
    assert first.calls == last.calls
    assert last.status == "success"


def test_another_run_gives_another_chance(train):
    logger = Table(log_metrics=fails(when=lambda call: call <= 3))
    trainer, told = train(logger=logger)
    assert codes(told) == ["LY-W001", "LY-W002"]
    assert logger.rows == []
    trainer.fit_loop.max_epochs = 3
    _, told = train(trainer.lightning_module, trainer=trainer)
    assert told == []
    assert [step for step, _ in logger.rows] == list(range(16, 24))


@pytest.mark.parametrize("place", ["version", "experiment"])
def test_a_logger_that_can_not_begin_raises(place, train):
    class Closed(Table):
        @property
        def version(self):
            return self._do("version")

    with pytest.raises(RuntimeError, match="out of ink"):
        train(logger=Closed(**{place: fails()}))


def test_a_folder_that_can_not_be_made_raises(train, tmp_path):
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(LoggerError, match="can not write to"):
        train(logger=CSVLogger(tmp_path / "logs"))


@pytest.fixture
def disk():
    """Say how large files may get, which the system tells as it tells of a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def room(size=resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield room
    room()
    signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_told_of_and_the_rows_wait(train, disk, tmp_path):
    class Full(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 3:
                disk(100)

    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    trainer, told = train(logger=logger, callbacks=[Full()])
    disk()
    assert trainer.global_step == 16
    assert trainer.state.status == "finished"
    assert set(codes(told)) <= {"LY-W001", "LY-W003"}
    assert any("rows wait" in text for _, text in told)
    logger.save()
    lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(16))


class Away(Table):
    """Its service is away: it keeps the rows, and says so at every save."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        if step > 2:
            raise LoggerError("the service is away; 1 rows wait")


def test_a_logger_that_keeps_what_it_can_not_write_is_never_switched_off(train):
    logger = Away()
    _, told = train(logger=logger)
    assert codes(told) == ["LY-W001", "LY-W003"]
    assert "LoggerError: the service is away; 1 rows wait" in told[0][1]
    assert len(logger.rows) == 16


HOOKS = ("setup", "on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "teardown")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_progress_bar_that_fails_ends_nothing(hook, train):
    calls = []

    def act(*args, **kwargs):
        calls.append(hook)
        raise ZeroDivisionError("nothing to do")

    bar = type("Bar", (ProgressBar,), {hook: act})()
    trainer, told = train(callbacks=[bar], enable_progress_bar=None)
    assert trainer.global_step == 16
    assert trainer.state.status == "finished"
    assert len(calls) == min(3, {"on_train_epoch_end": 2}.get(hook, 16 if "batch" in hook else 1))
    rest = [] if len(calls) == 1 else ["LY-W003"] if len(calls) == 2 else ["LY-W002"]
    assert codes(told) == ["LY-W001", *rest]
    assert f"callback `Bar` failed in `{hook}`" in told[0][1]
    assert "ZeroDivisionError: nothing to do" in told[0][1]


def test_where_logging_stands_is_kept_when_an_observer_fails(train, model):
    """A hook that fails in the middle leaves no trace in the rules of `self.log`."""

    class Bar(ProgressBar):
        def on_train_batch_start(self, *args):
            raise ValueError("torn")

        def setup(self, *args, **kwargs):
            raise ValueError("torn")

    class Careful(model):
        def on_train_batch_start(self, batch, batch_idx):
            self.log("start", 1.0)

        def on_train_epoch_end(self):
            self.log("end", 2.0)

    trainer, _ = train(Careful(), callbacks=[Bar()], enable_progress_bar=None)
    assert {"start", "loss", "end"} <= set(trainer.callback_metrics)
    with pytest.raises(MisconfigurationException):
        trainer.lightning_module.log("outside", 1.0)


def test_a_profiler_knows_an_observer_by_its_name(train):
    class Bar(ProgressBar):
        def on_train_start(self, *args):
            pass

    profiler = L.profilers.SimpleProfiler()
    train(callbacks=[Bar()], enable_progress_bar=None, profiler=profiler)
    name = f"[Callback]{Bar.__qualname__}"
    assert {f"{name}.setup", f"{name}.on_train_start"} <= set(profiler.recorded_durations)


def test_a_monitor_and_a_summary_that_fail_end_nothing(train, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no pipe")

    monkeypatch.setattr(ModelSummary, "summarize", broken)
    monkeypatch.setattr(LearningRateMonitor, "on_train_batch_start", broken)
    logger = Table()
    trainer, told = train(logger=logger, callbacks=[LearningRateMonitor("step"), ModelSummary()])
    assert sorted(codes(told)) == ["LY-W001", "LY-W001", "LY-W002"]
    assert trainer.global_step == 16
    assert len(logger.rows) == 16


def test_the_error_of_the_run_is_the_one_that_is_seen(train, model):
    class Wrong(model):
        def training_step(self, batch, batch_idx):
            raise KeyError("the real one")

    class Bar(ProgressBar):
        def on_exception(self, trainer, pl_module, exception):
            raise ValueError("in the bar")

        def teardown(self, trainer, pl_module, stage):
            raise ValueError("in the bar's teardown")

    logger, last = Table(finalize=fails()), Table()
    with pytest.raises(KeyError, match="the real one") as caught:
        train(Wrong(), logger=[logger, last], callbacks=[Bar()], enable_progress_bar=None)
    assert caught.value.__context__ is None
    assert last.status == "failed"


class Hook(L.Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        raise self.error


def test_callbacks_of_the_user_end_the_run(train):
    with pytest.raises(RuntimeError, match="mine"):
        train(callbacks=[Hook(RuntimeError("mine"))])


def test_a_callback_can_be_marked_as_an_observer(train):
    watching = type("Watching", (Hook,), {"observer": True})
    trainer, told = train(callbacks=[watching(RuntimeError("mine"))])
    assert trainer.global_step == 16
    assert codes(told) == ["LY-W001", "LY-W002"]


@pytest.mark.parametrize(
    "error", [MisconfigurationException("wrongly put together"), KeyboardInterrupt(), SystemExit(3)]
)
def test_what_no_observer_may_hold_back(error, train):
    kind = Interrupted if isinstance(error, KeyboardInterrupt) else type(error)
    with pytest.raises(kind):
        train(logger=Table(log_metrics=fails(error)))
    with pytest.raises(kind):
        train(callbacks=[type("Watching", (Hook,), {"observer": True})(error)])


@pytest.mark.parametrize("hook", ["log_hyperparams", "log_metrics", "save", "finalize", "after_save_checkpoint"])
def test_a_strict_run_raises(hook, train, tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path)
    with pytest.raises(RuntimeError, match="out of ink"):
        train(logger=Table(**{hook: fails()}), strict=True, callbacks=[saver], enable_checkpointing=None)


def test_the_environment_asks_for_a_strict_run(train, monkeypatch):
    monkeypatch.setenv("LEYDEN_STRICT", "1")
    with pytest.raises(RuntimeError, match="out of ink"):
        train(logger=Table(log_metrics=fails()))
    with pytest.raises(RuntimeError, match="mine"):
        train(callbacks=[type("Watching", (Hook,), {"observer": True})(RuntimeError("mine"))])
    trainer, _ = train(logger=Table(log_metrics=fails()), strict=False)
    assert trainer.global_step == 16


SCRIPT = """
import os
import sys

import torch

import leyden.core as L


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).square().mean(), sync_dist=True)

    def on_fit_end(self):
        with open(f"{sys.argv[1]}/done_{self.global_rank}", "w") as file:
            file.write(f"{self.global_step} {self.trainer.callback_metrics['val_loss'].item()}")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Broken(L.loggers.CSVLogger):
    def log_rows(self, names, stacked, steps):
        if int(os.environ.get("RANK", 0)) == 0:
            raise RuntimeError("out of ink")

    after_save_checkpoint = finalize = log_rows


class Bar(L.callbacks.ProgressBar):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_rank == 0:
            raise RuntimeError("torn")

    on_validation_epoch_end = on_train_batch_end


data = torch.utils.data.DataLoader(torch.ones(32, 1), batch_size=2)
trainer = L.Trainer(
    accelerator="cpu", devices=2, max_epochs=2, default_root_dir=sys.argv[1], enable_model_summary=False,
    logger=Broken(sys.argv[1]), callbacks=[Bar()], log_every_n_steps=1,
)
trainer.fit(Line(), data, data)
"""


@pytest.mark.dist
def test_two_processes_end_well_with_observers_that_fail_in_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = [(tmp_path / f"done_{rank}").read_text() for rank in (0, 1)]
    assert results[0] == results[1]
    assert results[0].startswith("16 ")
    for name in ("Broken", "Bar"):
        assert done.stderr.count(f"`{name}` failed 3 times in a row") == 1


def test_a_log_that_can_not_be_flushed_at_a_save_does_not_end_the_run(train, tmp_path):
    class Full(CSVLogger):
        def save(self):
            raise LoggerError("no room")

    saver = ModelCheckpoint(dirpath=tmp_path / "files", every_n_train_steps=1, save_top_k=-1)
    _, told = train(logger=Full(tmp_path), callbacks=[saver], enable_checkpointing=None)
    assert len(list((tmp_path / "files").iterdir())) == 16
    assert set(codes(told)) == {"LY-W001", "LY-W003"}


def test_a_broken_logger_costs_others_no_learning_rates(train):
    first, broken, last = Table(), Table(log_metrics=fails()), Table()
    _, told = train(logger=[broken, first, last], callbacks=[LearningRateMonitor("step")])
    for logger in (first, last):
        assert len([row for _, row in logger.rows if "lr-SGD" in row]) == 16
    assert set(codes(told)) == {"LY-W001", "LY-W002"}
