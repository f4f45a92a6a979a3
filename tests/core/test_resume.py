"""A run that goes on from a checkpoint ends with the bits of the run that was never interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import leyden.core as L
from leyden.core.demos.boring_classes import BoringModel, DemoModel
from leyden.core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DamagedCheckpointError,
    LeydenWarning,
    MisconfigurationException,
)


def data(n=40):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(7))
    return TensorDataset(x, x.sum(1, keepdim=True).sin())


class Rows(L.loggers.Logger):
    name, version = "rows", 0

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, metrics=None):
        pass


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self.net(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val", F.mse_loss(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.9)
        return [optimizer], [{"scheduler": plateau, "monitor": "val"}, {"scheduler": step, "interval": "step"}]


def fit(tmp_path, name, ckpt_path=None, *, callbacks=(), epochs=3, workers=0, loader=None, **flags):
    rows = Rows()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    trainer = L.Trainer(
        max_epochs=epochs,
        logger=rows,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, L.callbacks.ModelCheckpoint) for c in callbacks),
        default_root_dir=tmp_path / name,
        **quiet,
        **flags,
    )
    model = Model()
    torch.manual_seed(11)
    train = loader if loader is not None else DataLoader(data(), 4, shuffle=True, num_workers=workers)
    trainer.fit(model, train, DataLoader(data(12), 4), ckpt_path=ckpt_path)
    return model, rows.rows, trainer


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


class SaveAt(L.Callback):
    """Saves in one hook at one moment."""

    def __init__(self, hook, path, when):
        def save(trainer, pl_module, *args):
            if when(trainer) and not path.exists() and not trainer.sanity_checking:
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


MOMENTS = {
    "first batch": ("on_train_batch_end", lambda t: t.global_step == 1),
    "mid-epoch": ("on_train_batch_end", lambda t: t.global_step == 14),
    "last batch": ("on_train_batch_end", lambda t: t.global_step == 20),
    "batch start": ("on_train_batch_start", lambda t: t.global_step == 13),
    "after validation": ("on_validation_end", lambda t: t.current_epoch == 1),
    "end of an epoch": ("on_train_epoch_end", lambda t: t.current_epoch == 1),
    "start of an epoch": ("on_train_epoch_start", lambda t: t.current_epoch == 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_weights_rows_and_schedule_equal_the_uninterrupted_run(tmp_path, moment):
    hook, when = MOMENTS[moment]
    path = tmp_path / "at.ckpt"
    saver = SaveAt(hook, path, when)
    whole, rows, first = fit(tmp_path, "whole", callbacks=[saver])
    resumed, more, second = fit(tmp_path, "resumed", path)
    assert same(whole, resumed)
    assert more == rows[len(rows) - len(more) :]
    assert second.global_step == first.global_step == 30
    states = [t.lr_scheduler_configs[0].scheduler.state_dict() for t in (first, second)]
    assert states[0] == states[1]


@pytest.mark.parametrize("step", [3, 10, 13, 17])
@pytest.mark.parametrize(
    "flags", [{"val_check_interval": 0.3}, {"accumulate_grad_batches": 3}, {"limit_train_batches": 7}]
)
def test_other_rhythms(tmp_path, step, flags):
    path = tmp_path / "at.ckpt"
    calls = []
    saver = SaveAt("on_train_batch_end", path, lambda t: calls.append(1) or len(calls) == step)
    whole, rows, _ = fit(tmp_path, "whole", callbacks=[saver], **flags)
    assert path.exists()
    resumed, more, _ = fit(tmp_path, "resumed", path, **flags)
    assert same(whole, resumed)
    assert more == rows[len(rows) - len(more) :]


class Numbers(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return data()[i]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seeded_generator_and_workers(tmp_path, workers):
    def loader():
        return DataLoader(
            Numbers(), 4, shuffle=True, num_workers=workers, generator=torch.Generator().manual_seed(5), drop_last=True
        )

    path = tmp_path / "at.ckpt"
    saver = SaveAt("on_train_batch_end", path, lambda t: t.global_step == 14)
    whole, _, _ = fit(tmp_path, "whole", callbacks=[saver], loader=loader())
    resumed, _, _ = fit(tmp_path, "resumed", path, loader=loader())
    assert same(whole, resumed)


def test_an_iterable_is_replayed(tmp_path):
    class Unsized:
        def __iter__(self):
            return iter(list(DataLoader(data(), 4)))

    path = tmp_path / "at.ckpt"
    saver = SaveAt("on_train_batch_end", path, lambda t: t.global_step == 14)
    whole, _, _ = fit(tmp_path, "whole", callbacks=[saver], loader=Unsized())
    with pytest.warns(LeydenWarning, match="LY-D008"):
        resumed, _, _ = fit(tmp_path, "resumed", path, loader=Unsized())
    assert same(whole, resumed)


@pytest.mark.parametrize("step", [1, 6, 14])
def test_several_shuffled_loaders(tmp_path, step):
    class Several(Model):
        def training_step(self, batch, batch_idx):
            return sum(F.mse_loss(self.net(x), y) for x, y in batch.values())

    def run(name, ckpt_path=None, callbacks=()):
        trainer = L.Trainer(
            max_epochs=2,
            logger=False,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path / name,
        )
        model = Several()
        torch.manual_seed(11)
        loaders = {"a": DataLoader(data(), 4, shuffle=True), "b": DataLoader(data(12), 4, shuffle=True)}
        trainer.fit(model, loaders, DataLoader(data(12), 4), ckpt_path=ckpt_path)
        return model

    path = tmp_path / "at.ckpt"
    whole = run("whole", callbacks=[SaveAt("on_train_batch_end", path, lambda t: t.global_step == step)])
    assert same(whole, run("resumed", path))


def test_training_further_than_planned(tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "ck", save_top_k=-1)
    whole, _, _ = fit(tmp_path, "whole", callbacks=[saver], epochs=4)
    other = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "other", save_top_k=-1)
    with pytest.warns(LeydenWarning, match="dirpath has changed"):
        resumed, _, t = fit(tmp_path, "resumed", tmp_path / "ck" / "epoch=1-step=20.ckpt", epochs=4, callbacks=[other])
    assert same(whole, resumed)
    assert t.current_epoch == 4


# -- ckpt_path ---------------------------------------------------------------------------------------------------------


def checkpoints(tmp_path, **options):
    return L.callbacks.ModelCheckpoint(dirpath=tmp_path / "ck", **options)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match=r"Checkpoint file not found: .*nowhere\.ckpt"):
        fit(tmp_path, "a", tmp_path / "nowhere.ckpt")
    with pytest.raises(FileNotFoundError):
        fit(tmp_path, "a", str(tmp_path / "nowhere.ckpt"))


def test_a_damaged_file_is_named(tmp_path):
    fit(tmp_path, "a", callbacks=[checkpoints(tmp_path)], epochs=1)
    path = next((tmp_path / "ck").glob("*.ckpt"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedCheckpointError, match=r"epoch=0-step=10\.ckpt.*is damaged"):
        fit(tmp_path, "b", path)


def test_a_file_of_another_model_is_refused(tmp_path):
    fit(tmp_path, "a", callbacks=[checkpoints(tmp_path)], epochs=1)
    path = next((tmp_path / "ck").glob("*.ckpt"))
    other = torch.load(path, weights_only=True)
    del other["state_dict"]["net.0.weight"]
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"(?s)does not fit Model.*net\.0\.weight"):
        fit(tmp_path, "b", tmp_path / "other.ckpt")


def test_weights_alone_do_not_resume(tmp_path):
    saver = checkpoints(tmp_path, save_weights_only=True)
    fit(tmp_path, "a", callbacks=[saver], epochs=1)
    with pytest.raises(CheckpointError, match="contains only the model"):
        fit(tmp_path, "b", saver.best_model_path)


def test_best_and_last(tmp_path):
    saver = checkpoints(tmp_path, monitor="val", save_last=True, save_top_k=1)
    model, _, trainer = fit(tmp_path, "a", callbacks=[saver])
    assert trainer.validate(model, DataLoader(data(12), 4), ckpt_path="best", verbose=False)[0]["val"] == pytest.approx(
        float(saver.best_model_score)
    )
    again = checkpoints(tmp_path, monitor="val", save_last=True, save_top_k=1)
    resumed, rows, _ = fit(tmp_path, "a", "last", callbacks=[again])
    assert [set(row) for _, row in rows] == [{"loss_epoch", "epoch"}]
    assert same(model, resumed)
    nothing = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "empty")
    with pytest.warns(LeydenWarning, match="no last checkpoint available"):
        fit(tmp_path, "b", "last", callbacks=[nothing], epochs=1)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("word", "flags", "message"),
    [
        ("best", {"enable_checkpointing": False}, "is set but `ModelCheckpoint` is not configured"),
        ("best", {}, "is set but `ModelCheckpoint` is not configured to save the best model"),
        ("best", {"fast_dev_run": True}, "with `fast_dev_run=True`. Please pass an exact checkpoint path"),
        ("hpc", {}, "is set but no HPC checkpoint was found"),
    ],
)
def test_a_word_that_means_no_file_is_an_error_that_names_the_verb(quiet, verb, word, flags, message):
    model = BoringModel()
    with pytest.raises(ValueError, match=rf'`\.{verb}\(ckpt_path="{word}"\)` {message}'):
        getattr(quiet(**{"enable_checkpointing": True, **flags}), verb)(model, ckpt_path=word)


def test_the_first_of_several_savers_has_the_best(quiet, tmp_path):
    savers = [L.callbacks.ModelCheckpoint(dirpath=tmp_path / str(i), every_n_epochs=i + 1) for i in range(2)]
    trainer = quiet(enable_checkpointing=True, callbacks=savers, max_epochs=2, limit_train_batches=1)
    trainer.fit(BoringModel())
    with pytest.warns(LeydenWarning, match="multiple `ModelCheckpoint` callbacks. It will use the best"):
        trainer.test(BoringModel(), ckpt_path="best", verbose=False)
    assert trainer.ckpt_path == savers[0].best_model_path


def test_the_newest_file_of_a_cluster_is_found_by_its_number(quiet, tmp_path):
    trainer = quiet(limit_train_batches=1)
    trainer.fit(BoringModel())
    for number in (2, 10, 9):
        trainer.save_checkpoint(tmp_path / f"hpc_ckpt_{number}.ckpt")
    trainer.test(BoringModel(), ckpt_path="hpc", verbose=False)
    assert trainer.ckpt_path == str(tmp_path / "hpc_ckpt_10.ckpt")


def test_weights_of_another_model_are_a_runtime_error_too(quiet, tmp_path):
    trainer = quiet(limit_train_batches=1)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(RuntimeError, match=r"(?s)does not fit DemoModel.*Missing key.*l1\.weight"):
        trainer.predict(DemoModel(), [torch.ones(1, 32)], ckpt_path=tmp_path / "a.ckpt")


def test_a_run_can_not_go_on_from_behind_its_end(quiet, tmp_path):
    trainer = quiet(max_epochs=3, limit_train_batches=1)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(MisconfigurationException, match=r"with current_epoch=3, but you have set.*max_epochs=2"):
        quiet(max_epochs=2, limit_train_batches=1).fit(BoringModel(), ckpt_path=tmp_path / "a.ckpt")


def test_auto_starts_afresh_where_nothing_is_and_where_the_run_is_finished(tmp_path):
    _, rows, first = fit(tmp_path, "a", "auto", callbacks=[checkpoints(tmp_path)])
    assert len(rows) > 30
    _, rows, second = fit(tmp_path, "a", "auto", callbacks=[checkpoints(tmp_path)])
    assert len(rows) > 30
    assert first._run_id != second._run_id


class Stop(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 25:
            raise RuntimeError("pulled the plug")


def interrupted(tmp_path, **options):
    saver = checkpoints(tmp_path, save_top_k=-1, every_n_train_steps=4, **options)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        fit(tmp_path, "a", "auto", callbacks=[saver, Stop()])
    return sorted((tmp_path / "ck").glob("*.ckpt"))


def test_auto_goes_on_from_the_newest_valid_file_and_says_what_it_passed_over(tmp_path, capsys):
    whole, _, _ = fit(tmp_path, "whole")
    files = interrupted(tmp_path)
    newest = tmp_path / "ck" / "epoch=2-step=24.ckpt"
    assert newest in files
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 4
    newest.write_bytes(raw)
    (tmp_path / "ck" / "epoch=9-step=99.ckpt").write_bytes(b"half a file")
    saver = checkpoints(tmp_path, save_top_k=-1, every_n_train_steps=4)
    resumed, rows, _ = fit(tmp_path, "a", "auto", callbacks=[saver])
    said = capsys.readouterr().err
    assert "passed over" in said
    assert "epoch=9-step=99.ckpt" in said
    assert "epoch=2-step=24.ckpt" in said
    assert "resuming from" in said
    assert "epoch=1-step=20.ckpt" in said
    assert len(rows) < 20
    assert same(whole, resumed)


def test_auto_leaves_other_models_alone(tmp_path, capsys):
    interrupted(tmp_path)

    class Wider(Model):
        def __init__(self):
            super().__init__()
            self.net[0] = torch.nn.Linear(6, 8, bias=False)

    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        callbacks=[checkpoints(tmp_path)],
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Wider(), DataLoader(data(), 4), DataLoader(data(12), 4), ckpt_path="auto")
    assert "of another model" in capsys.readouterr().err
    assert trainer.global_step == 10


def test_auto_continues_the_version_and_the_csv_of_the_run(tmp_path):
    def run(callbacks, name):
        trainer = L.Trainer(
            max_epochs=3,
            logger=L.loggers.CSVLogger(tmp_path / name),
            log_every_n_steps=1,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        torch.manual_seed(11)
        trainer.fit(Model(), DataLoader(data(), 4, shuffle=True), DataLoader(data(12), 4), ckpt_path="auto")
        return trainer

    whole = run([L.callbacks.ModelCheckpoint(every_n_train_steps=4)], "whole")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run([L.callbacks.ModelCheckpoint(every_n_train_steps=4), Stop()], "cut")
    resumed = run([L.callbacks.ModelCheckpoint(every_n_train_steps=4)], "cut")
    folder = tmp_path / "cut" / "lightning_logs"
    assert [p.name for p in folder.iterdir()] == ["version_0"]
    texts = [(tmp_path / n / "lightning_logs/version_0/metrics.csv").read_text() for n in ("whole", "cut")]
    assert texts[0] == texts[1]
    assert resumed.global_step == whole.global_step


# -- real processes ----------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time, torch
from torch.utils.data import DataLoader, TensorDataset
import leyden.core as L

class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    def training_step(self, batch, batch_idx):
        if len(sys.argv) > 2:
            time.sleep(float(sys.argv[2]))
        x, y = batch
        return torch.nn.functional.mse_loss(self.net(x), y)
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)

torch.set_num_threads(1)
x = torch.randn(40, 6, generator=torch.Generator().manual_seed(7))
model = Model()
torch.manual_seed(11)
trainer = L.Trainer(max_epochs=4, logger=False, default_root_dir=sys.argv[1], enable_progress_bar=False,
                    enable_model_summary=False)
print("ready", flush=True)
trainer.fit(model, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 4, shuffle=True), ckpt_path="auto")
torch.save(model.state_dict(), sys.argv[1] + "/final.pt")
print("finished at step", trainer.global_step, flush=True)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    path = folder / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def start(root, *args):
        return subprocess.Popen(
            [sys.executable, str(path), str(root), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return start


@pytest.fixture(scope="module")
def uninterrupted(script, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    process = script(root)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "finished at step 40" in out
    return torch.load(root / "final.pt", weights_only=True)


def wait_for_checkpoint(root, process):
    deadline = time.monotonic() + 60
    while not list(root.glob("checkpoints/*.ckpt")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.reliability
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_process_that_is_signalled_goes_on_to_the_same_bits(script, uninterrupted, tmp_path, number, code):
    process = script(tmp_path, "0.05")
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    if number != signal.SIGKILL:
        assert "interrupted; the run is saved in" in err
        assert "Traceback" not in err
    for path in tmp_path.glob("checkpoints/*.ckpt"):
        assert zipfile.ZipFile(path).testzip() is None
    again = script(tmp_path)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "resuming from" in err
    assert "finished at step 40" in out
    final = torch.load(tmp_path / "final.pt", weights_only=True)
    assert all(torch.equal(final[k], uninterrupted[k]) for k in final)
    third = script(tmp_path)
    _, err = third.communicate(timeout=120)
    assert "is finished" in err
