"""The numbered differences of docs/differences.md, each held by at least one test."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.callbacks import ModelCheckpoint
from leyden.core.errors import CheckpointError, Interrupted, LeydenWarning, UnsafeCheckpointError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "differences.md"


class Line(L.LightningModule):
    """Fits y = w x by plain gradient descent; the batch's mean error is the loss."""

    def __init__(self, lr: float = 1.0):
        super().__init__()
        self.lr = lr
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        (x,) = batch
        return (self.weight * x).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def ones(count: int, size: int = 1) -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(count)), batch_size=size)


def trainer(tmp_path: Path, **flags) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(**({"max_epochs": 1, "default_root_dir": tmp_path} | quiet | flags))


def test_1_the_last_window_of_an_epoch_is_scaled_by_its_real_size(tmp_path):
    model = Line()
    trainer(tmp_path, accumulate_grad_batches=2).fit(model, ones(3))
    # Gradient 1 from the full window, and 1, not 1/2, from the window that holds one batch.
    assert model.weight.item() == -2.0


def test_2_on_train_batch_end_gets_the_loss_that_training_step_returned(tmp_path):
    seen = []

    class Constant(Line):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + 6.0

        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(outputs["loss"].item())

    trainer(tmp_path, accumulate_grad_batches=4).fit(Constant(lr=0.0), ones(4))
    assert seen == [6.0] * 4


def test_3_the_optimiser_steps_without_a_closure_unless_something_needs_one(tmp_path):
    closures = []

    class Recorder(torch.optim.SGD):
        def step(self, closure=None):
            closures.append(closure)
            return super().step(closure)

    class Plain(Line):
        def configure_optimizers(self):
            return Recorder(self.parameters(), lr=0.1)

    class Overriding(Plain):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            optimizer.step(closure=optimizer_closure)

    trainer(tmp_path).fit(Plain(), ones(2))
    assert closures == [None, None]
    closures.clear()
    trainer(tmp_path).fit(Overriding(), ones(2))
    assert all(callable(closure) for closure in closures)


def test_4_a_step_that_returns_none_steps_nothing(tmp_path):
    class Skipping(Line):
        def training_step(self, batch, batch_idx):
            return None if batch_idx < 3 else super().training_step(batch, batch_idx)

    model = Skipping()
    run = trainer(tmp_path)
    run.fit(model, ones(4))
    assert run.global_step == 1
    assert model.weight.item() == -1.0


def test_5_another_module_starts_afresh(tmp_path):
    run = trainer(tmp_path)
    model = Line()
    run.fit(model, ones(3))
    assert (run.global_step, run.current_epoch) == (3, 1)
    run.fit(Line(), ones(2))
    assert (run.global_step, run.current_epoch) == (2, 1)


def test_6_a_list_of_batches_is_data_and_not_a_list_of_loaders(tmp_path):
    class Counting(Line):
        def validation_step(self, batch, batch_idx):
            self.log("seen", float(batch), batch_size=1, reduce_fx="sum")

    (row,) = trainer(tmp_path).validate(Counting(), [torch.tensor(1.0), torch.tensor(2.0)], verbose=False)
    assert row == {"seen": 3.0}
    rows = trainer(tmp_path).validate(
        type("Two", (Counting,), {"validation_step": lambda self, batch, batch_idx, dataloader_idx: None})(),
        [range(2), range(3)],
        verbose=False,
    )
    assert len(rows) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_7_teardown_runs_after_every_exception(tmp_path, error):
    calls = []

    class Failing(Line):
        def training_step(self, batch, batch_idx):
            raise error

        def teardown(self, stage):
            calls.append(stage)

    with pytest.raises((error, Interrupted)):
        trainer(tmp_path).fit(Failing(), ones(1))
    assert calls == ["fit"]


def test_8_an_interruption_exits_with_128_and_the_number_of_its_signal(tmp_path):
    class Interrupting(Line):
        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        trainer(tmp_path).fit(Interrupting(), ones(1))
    assert caught.value.code == 130


def test_9_loading_never_runs_code_from_a_file(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Line().state_dict(), "hyper_parameters": {"lr": Payload()}}, tmp_path / "hostile.ckpt")
    with pytest.raises(UnsafeCheckpointError):
        Line.load_from_checkpoint(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "ran").exists()


class Callable(Line):
    def __init__(self, activation, lr: float = 1.0):
        super().__init__(lr)
        self.save_hyperparameters()


def test_10_a_hyper_parameter_without_a_plain_form_is_named_at_once_and_asked_for_later(tmp_path):
    with pytest.warns(LeydenWarning, match="activation"):
        model = Callable(torch.relu)
    assert model.hparams.activation is torch.relu
    run = trainer(tmp_path)
    run.fit(model, ones(1))
    run.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"activation=\.\.\."):
        Callable.load_from_checkpoint(tmp_path / "model.ckpt")
    with pytest.warns(LeydenWarning, match="activation"):
        assert Callable.load_from_checkpoint(tmp_path / "model.ckpt", activation=torch.relu).hparams.lr == 1.0


def test_11_last_is_a_second_name_of_the_newest_file(tmp_path):
    saver = ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=1)
    trainer(tmp_path, enable_checkpointing=True, callbacks=[saver]).fit(Line(), ones(2))
    last, (other,) = tmp_path / "last.ckpt", [p for p in tmp_path.glob("*.ckpt") if p.name != "last.ckpt"]
    assert last.samefile(other)


def test_12_a_run_resumed_in_the_middle_of_an_epoch_sees_the_batches_that_were_left(tmp_path):
    def run(stop_at: int | None, ckpt_path: Path | None = None) -> tuple[list[float], float]:
        seen: list[float] = []

        class Shuffled(Line):
            def training_step(self, batch, batch_idx):
                seen.append(batch[0].item())
                noisy = batch[0] + torch.randn(())
                return (self.weight * noisy).mean()

            def on_train_batch_end(self, outputs, batch, batch_idx):
                if stop_at == batch_idx + 1:
                    self.trainer.save_checkpoint(tmp_path / "middle.ckpt")
                    raise RuntimeError("killed")

        torch.manual_seed(3)
        data = DataLoader(TensorDataset(torch.arange(10.0)), shuffle=True)
        model = Shuffled(lr=0.1)
        with suppress(RuntimeError):
            trainer(tmp_path).fit(model, data, ckpt_path=ckpt_path)
        return seen, model.weight.item()

    whole, weight = run(None)
    first, _ = run(4)
    torch.manual_seed(99)
    rest, resumed = run(None, tmp_path / "middle.ckpt")
    assert first + rest == whole
    assert resumed == weight


def test_13_a_warning_has_a_code_and_is_shown_once_a_run(tmp_path):
    class Optimiserless(Line):
        def validation_step(self, batch, batch_idx):
            pass

    for _ in range(2):
        with pytest.warns(LeydenWarning, match=r"\[LY-\w+\]") as caught:
            trainer(tmp_path).fit(Optimiserless(), ones(1))
        codes = [warning.message.code for warning in caught]
        assert len(codes) == len(set(codes)) > 0


def test_every_number_names_a_test_that_exists():
    rows = re.findall(r"^\| (\d+) \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, len(rows) + 1)]
    assert rows
    for row in re.findall(r"^\| \d+ \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        ids = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert ids, f"no test holds this difference: {row}"
        for path, name in ids:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"
