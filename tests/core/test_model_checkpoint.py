"""ModelCheckpoint: when, under which name, and what stays."""

import os
from datetime import timedelta

import pytest
import torch
import yaml

import leyden.core as L
from leyden.core.checkpoint import file
from leyden.core.errors import LeydenWarning, MisconfigurationException


class Model(L.LightningModule):
    """Logs given values, one per epoch."""

    def __init__(self, values=()):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.values = list(values)

    def training_step(self, batch, batch_idx):
        return (self.w * batch).sum()

    def on_train_epoch_end(self):
        if self.values:
            self.log("score", float(self.values[self.current_epoch]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Validated(Model):
    def on_train_epoch_end(self):
        pass

    def validation_step(self, batch, batch_idx):
        self.log("score", float(self.values[self.current_epoch]))


def run(folder, model, *, epochs, val=None, callbacks=(), **options):
    saver = L.callbacks.ModelCheckpoint(dirpath=folder, **options)
    trainer = L.Trainer(
        max_epochs=epochs,
        logger=False,
        callbacks=[saver, *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, [torch.ones(1)] * 4, val)
    return saver, sorted(os.listdir(folder))


def test_by_default_the_newest_epoch_stays(tmp_path):
    saver, files = run(tmp_path, Model(), epochs=3)
    assert files == ["epoch=2-step=12.ckpt"]
    assert saver.best_model_path == str(tmp_path / files[0])


@pytest.mark.parametrize(
    ("mode", "top", "kept"),
    [
        ("min", 1, ["epoch=2-score=0.10.ckpt"]),
        ("min", 2, ["epoch=2-score=0.10.ckpt", "epoch=4-score=0.20.ckpt"]),
        ("max", 2, ["epoch=0-score=0.90.ckpt", "epoch=3-score=0.80.ckpt"]),
        ("max", -1, [f"epoch={i}-score={v:.2f}.ckpt" for i, v in enumerate([0.9, 0.5, 0.1, 0.8, 0.2])]),
        ("min", 0, []),
    ],
)
def test_the_best_stay(tmp_path, mode, top, kept):
    model = Model([0.9, 0.5, 0.1, 0.8, 0.2])
    saver, files = run(
        tmp_path, model, epochs=5, monitor="score", mode=mode, save_top_k=top, filename="{epoch}-{score:.2f}"
    )
    assert files == kept
    if kept:
        assert float(saver.best_model_score) == pytest.approx(0.1 if mode == "min" else 0.9)
        assert file.read_record(tmp_path / os.path.basename(saver.best_model_path))["step"] % 4 == 0


@pytest.mark.parametrize("model", [Model, Validated])
def test_the_score_is_that_of_the_moment(tmp_path, model):
    saver, files = run(
        tmp_path, model([3.0, 1.0, 2.0]), epochs=3, val=[torch.ones(1)] if model is Validated else None, monitor="score"
    )
    assert files == ["epoch=1-step=8.ckpt"]
    assert float(saver.best_model_score) == 1.0


def test_last_is_a_second_name_of_the_newest_file_and_not_a_copy(tmp_path):
    saver, files = run(tmp_path, Model([1.0, 2.0, 0.5]), epochs=3, monitor="score", save_last=True)
    assert files == ["epoch=2-step=12.ckpt", "last.ckpt"]
    assert os.path.samefile(tmp_path / "last.ckpt", tmp_path / "epoch=2-step=12.ckpt")
    assert saver.last_model_path == str(tmp_path / "last.ckpt")


def test_last_is_the_file_itself_where_no_policy_keeps_the_newest(tmp_path):
    _, files = run(tmp_path, Model([1.0, 2.0, 3.0]), epochs=3, monitor="score", save_last=True)
    assert files == ["epoch=0-step=4.ckpt", "last.ckpt"]
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12
    assert torch.load(tmp_path / files[0], weights_only=True)["global_step"] == 4
    assert file.read_record(tmp_path / "last.ckpt")["finished"] is True


def test_every_n_steps_and_epochs_and_after_a_time(tmp_path):
    _, files = run(tmp_path / "a", Model(), epochs=2, every_n_train_steps=3, save_top_k=-1)
    assert files == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]
    _, files = run(tmp_path / "b", Model(), epochs=4, every_n_epochs=2, save_top_k=-1)
    assert files == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt"]
    _, files = run(tmp_path / "c", Model(), epochs=1, train_time_interval=timedelta(seconds=0), save_top_k=-1)
    assert len(files) == 4


def test_a_name_that_is_taken_gets_a_version(tmp_path):
    run(tmp_path, Model(), epochs=1, filename="same", save_last=True)
    for counts in (True, False):
        with pytest.warns(LeydenWarning, match=r"Checkpoint directory .* exists and is not empty"):
            saver, files = run(
                tmp_path, Model(), epochs=1, filename="same", save_last=True, enable_version_counter=counts
            )
        assert files == ["last-v1.ckpt", "last.ckpt", "same-v1.ckpt", "same.ckpt"]
        assert saver.last_model_path == str(tmp_path / ("last-v1.ckpt" if counts else "last.ckpt"))


def test_folders_in_names_and_names_without_their_keys(tmp_path):
    saver = L.callbacks.ModelCheckpoint(
        dirpath=tmp_path, filename="{epoch:02d}/{val/acc:.1f}", auto_insert_metric_name=False
    )
    assert saver.format_checkpoint_name({"epoch": 3, "val/acc": 0.25}) == str(tmp_path / "03/0.2.ckpt")


MISSING = r"could not find the monitored key.*\['score'\].*HINT: Did you call"


def test_a_missing_monitor_names_what_there_is(tmp_path):
    with pytest.raises(MisconfigurationException, match=MISSING):
        run(tmp_path, Validated([1.0]), epochs=1, val=[torch.ones(1)], monitor="acc")


def test_without_validation_a_missing_monitor_may_still_come(tmp_path):
    class Later(Model):
        def on_train_epoch_end(self):
            self.log("score" if self.current_epoch == 0 else "late", 1.0)

    with pytest.warns(LeydenWarning, match=MISSING):
        _, files = run(tmp_path, Later(), epochs=2, monitor="late")
    assert files == ["epoch=1-step=8.ckpt"]


def test_a_step_waits_for_the_validation_that_gives_the_score(tmp_path):
    saver, files = run(
        tmp_path,
        Validated([1.0, 2.0, 3.0]),
        epochs=3,
        val=[torch.ones(1)],
        monitor="score",
        mode="max",
        every_n_train_steps=4,
        save_on_train_epoch_end=False,
        filename="{step}-{score}",
    )
    assert files == ["step=12-score=3.0.ckpt"]
    assert float(saver.best_model_score) == 3.0


def test_last_is_written_at_the_end_if_no_moment_to_save_came(tmp_path):
    _, files = run(tmp_path, Model(), epochs=1, every_n_train_steps=100, save_last=True)
    assert files == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_run_that_saves_nothing_makes_no_folder(tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / "files", every_n_epochs=5)
    trainer = L.Trainer(
        max_epochs=1, logger=False, callbacks=saver, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Model(), [torch.ones(1)])
    assert saver.dirpath == str(tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_every_file_knows_the_path_of_last(tmp_path):
    saver, files = run(tmp_path, Model(), epochs=1, save_last=True)
    for name in files:
        state = torch.load(tmp_path / name, weights_only=True)["callbacks"][saver.state_key]
        assert state["last_model_path"] == str(tmp_path / "last.ckpt")


def test_last_can_have_values_in_its_name(tmp_path):
    class Named(L.callbacks.ModelCheckpoint):
        CHECKPOINT_NAME_LAST = "{epoch}-last"

    saver = Named(dirpath=tmp_path, save_last=True)
    trainer = L.Trainer(
        max_epochs=3, logger=False, callbacks=saver, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Model(), [torch.ones(1)])
    assert sorted(os.listdir(tmp_path)) == ["epoch=2-last.ckpt", "epoch=2-step=3.ckpt"]
    assert os.path.samefile(*tmp_path.iterdir())
    assert file.read_record(tmp_path / "epoch=2-last.ckpt")["finished"] is True


def test_a_file_that_another_run_left_is_not_deleted(tmp_path):
    first, _ = run(tmp_path, Model([1.0]), epochs=1, monitor="score")
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, monitor="score")
    trainer = L.Trainer(
        max_epochs=2, logger=False, callbacks=saver, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Model([1.0, 0.5]), [torch.ones(1)] * 4, ckpt_path=first.best_model_path)
    assert sorted(os.listdir(tmp_path)) == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]
    assert list(saver.best_k_models) == [str(tmp_path / "epoch=1-step=8.ckpt")]


def test_the_scores_go_into_a_file(tmp_path):
    saver, _ = run(tmp_path / "a", Model([3.0, 1.0, 2.0]), epochs=3, monitor="score", save_top_k=2)
    expected = {str(tmp_path / "a" / "epoch=1-step=8.ckpt"): 1.0, str(tmp_path / "a" / "epoch=2-step=12.ckpt"): 2.0}
    saver.to_yaml(tmp_path / "scores.yaml")
    assert yaml.safe_load((tmp_path / "scores.yaml").read_text()) == expected
    saver.to_yaml()
    assert yaml.safe_load((tmp_path / "a" / "best_k_models.yaml").read_text()) == expected


def test_it_says_what_it_saves_and_why_not(tmp_path, capsys):
    run(tmp_path, Model([1.0, 2.0]), epochs=2, monitor="score", verbose=True, filename="{epoch}")
    said = capsys.readouterr().out
    path = str(tmp_path / "epoch=0.ckpt")
    assert f"Epoch 0, global step 4: 'score' reached 1.00000 (best 1.00000), saving model to {path!r} as top 1" in said
    assert "Epoch 1, global step 8: 'score' was not in top 1" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "`mode` can be min, max but got best"),
        ({"save_top_k": -2}, "Must be >= -1"),
        ({"every_n_train_steps": -1}, "every_n_train_steps=-1. Must be >= 0"),
        ({"every_n_train_steps": 1, "every_n_epochs": 1}, "mutually exclusive"),
        ({"save_top_k": 3}, "No quantity for top_k to track"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        L.callbacks.ModelCheckpoint(**options)


def test_the_folder_is_that_of_the_first_logger(tmp_path):
    trainer = L.Trainer(
        max_epochs=1,
        logger=L.loggers.CSVLogger(tmp_path, name="mine", version="v"),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), [torch.ones(1)])
    assert [p.name for p in (tmp_path / "mine" / "v" / "checkpoints").iterdir()] == ["epoch=0-step=1.ckpt"]
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "mine" / "v" / "checkpoints")


def test_an_exception_saves_on_request(tmp_path):
    class Failing(Model):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise ValueError("in the step")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="in the step"):
        run(tmp_path, Failing(), epochs=1, save_on_exception=True)
    assert os.listdir(tmp_path) == ["epoch=0-step=2.ckpt"]


def test_a_fast_dev_run_writes_nothing(tmp_path):
    trainer = L.Trainer(fast_dev_run=True, default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.fit(Model(), [torch.ones(1)] * 4)
    assert trainer.global_step == 1
    assert list(tmp_path.iterdir()) == []
