"""The first example, as a real process: it does what it says, and nothing that happens to it loses work."""

from __future__ import annotations

import csv
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sklearn  # noqa: F401 - importing it sets environment variables, which no test is to be blamed for
import torch

from leyden.bolts import DigitsDataModule
from leyden.export import load

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "digits.py"
EPOCHS = 6


def command(root=None, epochs=None):
    options = [] if root is None else ["--root", str(root)]
    options += [] if epochs is None else ["--epochs", str(epochs)]
    return [sys.executable, str(SCRIPT), *options]


def run(folder, root=None, epochs=None):
    """Run the example to its end."""
    return subprocess.run(command(root, epochs), cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def run_and_stop(folder, root, with_signal):
    """Run the example, send it a signal once it has saved something, and return its exit code and what it said."""
    said = folder / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            command(root, EPOCHS),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            # A shell that puts pytest into the background lets it, and all its children, ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            while not (root / "version_0" / "checkpoints" / "last.ckpt").exists():
                assert process.poll() is None, said.read_text()
                time.sleep(0.005)
            process.send_signal(with_signal)
            return process.wait(timeout=60), said.read_text()
        finally:
            process.kill()
            process.wait()


def weights(run_folder):
    """The weights at the end of a run."""
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def identical(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def table(run_folder):
    with (run_folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """What a run without any option said, and the folder that it made."""
    folder = tmp_path_factory.mktemp("full")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "runs" / "digits" / "version_0"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a short run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder, folder / "digits", EPOCHS)
    assert done.returncode == 0, done.stderr
    return folder / "digits" / "version_0"


def test_it_reaches_its_accuracy_and_says_it(full):
    done, _ = full
    checkpoint = re.search(r"^best checkpoint +(\S+) +(\S+)", done.stdout, re.MULTILINE)
    onnx = re.search(r"^ONNX in onnxruntime +(\S+) +(\S+)", done.stdout, re.MULTILINE)
    assert float(checkpoint[1]) >= 0.97
    assert float(checkpoint[2]) >= 0.97
    assert checkpoint.groups() == onnx.groups()
    assert float(re.search(r"difference between their logits: (\S+)", done.stdout)[1]) < 1e-4
    assert "73.0 K    Total params" in done.stdout
    assert "Warning" not in done.stderr


def test_its_files_are_what_they_are_called(full):
    done, folder = full
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    boards = {name for name in names if name.startswith("events.out.tfevents.")}
    expected = {"best.ckpt", "last.ckpt", "digits.onnx", "digits.png", "hparams.yaml", "metrics.csv"}
    assert names - boards == expected
    assert all(name in done.stdout for name in names)

    picture = (folder / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (1320, 990)

    (board,) = boards
    assert b"brain.Event:2" in (folder / board).read_bytes()[:100]


def test_its_table_holds_every_epoch_and_the_test(full):
    done, folder = full
    rows = table(folder)
    epochs = [int(row["epoch"]) for row in rows if row["val_loss"]]
    assert epochs == list(range(len(epochs)))
    assert all(row["train_loss"] and row["val_accuracy"] and row["val_f1"] for row in rows[: len(epochs)])
    assert f"{float(rows[-1]['test_accuracy']):.4f}" in done.stdout


def test_its_onnx_file_takes_raw_pictures(full):
    done, folder = full
    data = DigitsDataModule()
    data.setup("test")
    pictures, labels = data.test.tensors
    exported = load(folder / "digits.onnx")
    accuracy = (exported(pictures).argmax(1) == labels).float().mean().item()
    assert accuracy >= 0.97
    assert f"ONNX in onnxruntime {accuracy:>14.4f}" in done.stdout
    assert exported.metadata["labels"] == list("0123456789")


def test_a_second_run_begins_afresh_beside_the_first_and_ends_with_the_same_bits(undisturbed):
    done = run(undisturbed.parents[1], undisturbed.parent, EPOCHS)
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stderr
    assert sorted(path.name for path in undisturbed.parent.iterdir()) == ["version_0", "version_1"]
    assert identical(weights(undisturbed), weights(undisturbed.with_name("version_1")))


@pytest.mark.reliability
@pytest.mark.parametrize(("with_signal", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["kill", "ctrl-c"])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(with_signal, code, undisturbed, tmp_path):
    root = tmp_path / "digits"
    stopped, said = run_and_stop(tmp_path, root, with_signal)
    assert stopped == code, said
    assert ("interrupted; the run is saved" in said) == (with_signal == signal.SIGINT)
    assert not (root / "version_0" / "digits.onnx").exists()

    done = run(tmp_path, root, EPOCHS)
    assert done.returncode == 0, done.stderr
    assert re.search(r"resuming from .*\.ckpt \(epoch \d+, step \d+\)", done.stderr)
    assert [path.name for path in root.iterdir()] == ["version_0"]
    assert identical(weights(undisturbed), weights(root / "version_0"))
    assert table(root / "version_0") == table(undisturbed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "a-file/runs"], "--root a-file/runs can not be a folder: "),
        (["--epochs", "0"], "epochs must be an integer of at least 1; got 0"),
        (["--seed", "-1"], "-1 is not in bounds: a seed is an integer from 0 to"),
    ],
    ids=["root", "epochs", "seed"],
)
def test_what_can_not_work_is_refused_in_one_line(options, message, tmp_path):
    (tmp_path / "a-file").touch()
    done = subprocess.run([*command(), *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"digits.py: error: {message}")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("version_*"))
