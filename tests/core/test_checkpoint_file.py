"""One checkpoint file: durable, verified, safe."""

import json
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import leyden.core as L
from leyden.core.checkpoint import file
from leyden.core.errors import CheckpointError, CheckpointNotFoundError, DamagedCheckpointError, UnsafeCheckpointError

STATE = {
    "state_dict": {"w": torch.arange(999.0).reshape(3, 333), "b": torch.ones(5).bfloat16()},
    "epoch": 3,
    "t": (1, "a"),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.ckpt"
    file.save(path, STATE, {"step": 7, "run": "r"})
    return path


def equal(state):
    return all(torch.equal(state["state_dict"][k], v) for k, v in STATE["state_dict"].items()) and state["t"] == (
        1,
        "a",
    )


def test_torch_alone_reads_the_file_safely_and_mapped(saved):
    assert equal(torch.load(saved, weights_only=True))
    assert equal(torch.load(saved, weights_only=True, mmap=True))


def test_the_record_is_read_without_the_tensors_and_can_be_changed(saved):
    assert file.read_record(saved) == {"step": 7, "run": "r"}
    file.restamp(saved, finished=True)
    assert file.read_record(saved) == {"step": 7, "run": "r", "finished": True}
    assert equal(file.load(saved))
    names = zipfile.ZipFile(saved).namelist()
    assert len(names) == len(set(names))


def test_files_get_the_mode_that_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        file.save(tmp_path / "m.ckpt", STATE, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.ckpt").stat().st_mode) == 0o640


def test_every_truncation_is_found_and_named(saved):
    whole = saved.read_bytes()
    for size in [0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        saved.write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpointError, match=r"a\.ckpt \(\d+ bytes\) is damaged"):
            file.load(saved)


@settings(max_examples=150, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path_factory, position, bit):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "flip.ckpt"
    file.save(path, STATE, {"step": 7})
    raw = bytearray(path.read_bytes())
    raw[int(position * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    try:
        state = file.load(path)
    except DamagedCheckpointError as error:
        assert "flip.ckpt" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert equal(state)
        assert state["epoch"] == 3


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_in_a_hostile_file_runs(tmp_path):
    proof, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "x": Hostile(proof)}, path)
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.ckpt needs (os|posix)\.system.*nothing was run"):
        file.load(path)
    with pytest.raises(UnsafeCheckpointError):
        L.LightningModule.load_from_checkpoint(path)
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps(Hostile(proof)))
    with pytest.raises(DamagedCheckpointError):
        file.load(plain)
    assert not proof.exists()


def test_what_only_code_could_rebuild_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "b.ckpt"
    with pytest.raises(CheckpointError, match=r"checkpoint\['callbacks'\]\['mine'\]\[1\] is a .*Hostile"):
        file.save(path, {"callbacks": {"mine": [1, Hostile("x")]}}, {})
    assert list(tmp_path.iterdir()) == []


def test_other_files_and_folders_are_named(tmp_path):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(DamagedCheckpointError, match=r"text\.ckpt"):
        file.load(tmp_path / "text.ckpt")
    with pytest.raises(CheckpointNotFoundError):
        file.load(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        file.load(tmp_path)


@pytest.mark.reliability
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "full.ckpt"
    file.save(path, STATE, {"step": 1})
    before = path.read_bytes()
    code = f"""
import resource, signal, torch
from pathlib import Path
from leyden.core.checkpoint import file
from leyden.core.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    file.save(Path({str(path)!r}), {{"w": torch.zeros(100000)}}, {{}})
except CheckpointError as error:
    print("named:", error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "named: could not save the checkpoint" in result.stdout, result.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["full.ckpt"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.reliability
def test_killed_while_saving_there_is_always_a_whole_file_and_the_rest_is_swept(tmp_path):
    code = f"""
import torch
from pathlib import Path
from leyden.core.checkpoint import file
state = {{"w": torch.randn(500_000)}}
step = 0
while True:
    step += 1
    file.save(Path({str(tmp_path)!r}) / "run.ckpt", state, {{"step": step}})
    if step == 1: print("saving", flush=True)
"""
    left = 0
    for trial in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "saving\n"
        time.sleep(0.03 + 0.017 * trial)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert file.load(tmp_path / "run.ckpt")["w"].shape == (500_000,)
        left += len([p for p in tmp_path.iterdir() if p.name.endswith(".tmp")])
        file.sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_sweeping_leaves_the_living_alone(tmp_path):
    mine = file.temporary_name(tmp_path / "x.ckpt")
    mine.write_text("being written")
    other = tmp_path / ".y.ckpt.another-host.1.tmp"
    other.write_text("of another machine")
    assert file.sweep(tmp_path) == []
    assert mine.exists()
    assert other.exists()


def test_the_keys_of_a_real_checkpoint_are_the_references(tmp_path):
    class Model(L.LightningModule):
        def __init__(self, width: int = 3):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(width, 1)

        def training_step(self, batch):
            return self.layer(batch).sum()

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters())
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    trainer = L.Trainer(
        max_epochs=2, logger=False, callbacks=[saver], enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Model(), [torch.randn(2, 3)] * 4)
    path = tmp_path / "epoch=1-step=8.ckpt"
    state = torch.load(path, weights_only=True)
    keys = "epoch global_step pytorch-lightning_version state_dict loops callbacks optimizer_states lr_schedulers"
    assert set(state) == {*keys.split(), "hparams_name", "hyper_parameters", "leyden"}
    assert (state["epoch"], state["global_step"], state["hyper_parameters"]) == (1, 8, {"width": 3})
    fit = state["loops"]["fit_loop"]
    assert fit["epoch_loop.batch_progress"]["total"] == {"ready": 8, "completed": 8, "started": 8, "processed": 8}
    assert fit["epoch_loop.batch_progress"]["is_last_batch"] is True
    assert fit["epoch_progress"]["current"] == {"ready": 2, "completed": 1, "started": 2, "processed": 2}
    optimizer = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    assert optimizer["step"] == {"total": {"ready": 8, "completed": 8}, "current": {"ready": 4, "completed": 4}}
    assert fit["epoch_loop.state_dict"] == {"_batches_that_stepped": 8}
    record = file.read_record(path)
    assert record["finished"] is True
    assert record["finite"] is True
    assert record["step"] == 8
    json.dumps(record)
