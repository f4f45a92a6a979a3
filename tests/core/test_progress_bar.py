"""The progress bar: drawn on a terminal, a line per epoch where there is none, and never in the way."""

import fcntl
import io
import os
import pickle
import pty
import re
import struct
import sys
import termios

import pytest
import torch

import leyden.core as L
from leyden.core.callbacks.progress import tqdm_progress
from leyden.core.errors import MisconfigurationException, MisconfigurationValueError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Put a terminal in the place of stderr when it is called; every drawing is let through."""

    def begin():
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(tqdm_progress, "REFRESH_SECONDS", 0.0)
        monkeypatch.setenv("COLUMNS", "120")
        return sys.stderr

    return begin


@pytest.fixture
def shown(tiny):
    """A module that shows values in the bar."""

    class Shown(tiny):
        def training_step(self, batch, batch_idx):
            self.log("loss", torch.tensor(0.123456), prog_bar=True)
            self.log("hidden", 1.0)
            return super().training_step(batch, batch_idx)

        def test_step(self, batch, batch_idx, dataloader_idx=0): ...

        def predict_step(self, batch, batch_idx): ...

    return Shown


@pytest.fixture
def validated(shown):
    """The same with a validation that shows a value too."""

    class Validated(shown):
        def validation_step(self, batch, batch_idx):
            self.log("val", 7.0, prog_bar=True)

    return Validated


@pytest.fixture
def barred(quiet):
    return lambda **flags: quiet(**{"enable_progress_bar": True, "num_sanity_val_steps": 0, **flags})


def last_drawing(text, title):
    return [part for part in text.replace("\n", "\r").split("\r") if part.startswith(title)][-1]


def test_a_bar_counts_to_the_end_of_each_epoch_and_shows_values(terminal, barred, shown, numbers):
    screen = terminal()
    barred(max_epochs=2).fit(shown(), numbers())
    text = screen.getvalue()
    for epoch in range(2):
        assert "4/4" in last_drawing(text, f"Epoch {epoch}")
        assert "loss=0.123" in last_drawing(text, f"Epoch {epoch}")
    assert "hidden" not in text
    assert "1/4" in text


def test_the_values_of_the_epoch_s_validation_stand_at_its_end(terminal, barred, validated, numbers):
    screen = terminal()
    barred().fit(validated(), numbers(), numbers(2))
    assert "val=7.000" in last_drawing(screen.getvalue(), "Epoch 0")
    assert "1/1" in last_drawing(screen.getvalue(), "Validation DataLoader 0")


def test_the_version_of_the_run_is_shown(terminal, barred, shown, numbers, tmp_path):
    screen = terminal()
    barred(logger=L.loggers.CSVLogger(tmp_path, version=3)).fit(shown(), numbers())
    assert "v_num=3" in last_drawing(screen.getvalue(), "Epoch 0")


@pytest.mark.parametrize(
    ("verb", "title"), [("validate", "Validation"), ("test", "Testing"), ("predict", "Predicting")]
)
def test_each_verb_has_a_bar(terminal, barred, validated, numbers, verb, title):
    screen = terminal()
    getattr(barred(), verb)(validated(), numbers())
    drawing = last_drawing(screen.getvalue(), title)
    assert drawing.startswith(f"{title} DataLoader 0: ")
    assert " 4/" in drawing


def test_a_bar_over_several_loaders_names_the_loader(terminal, barred, shown, numbers):
    screen = terminal()
    barred().test(shown(), [numbers(), numbers(4)], verbose=False)
    assert " 4/" in last_drawing(screen.getvalue(), "Testing DataLoader 0")
    assert " 2/" in last_drawing(screen.getvalue(), "Testing DataLoader 1")


def test_data_without_a_length_have_a_bar_without_an_end(terminal, barred, shown, numbers):
    screen = terminal()
    barred().fit(shown(), (batch for batch in numbers()))
    assert " 4/?" in last_drawing(screen.getvalue(), "Epoch 0")


def test_a_run_resumed_in_the_middle_of_an_epoch_has_its_bar(terminal, barred, shown, numbers, tmp_path):
    screen = terminal()

    class Saving(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    barred(enable_progress_bar=False, callbacks=Saving()).fit(shown(), numbers())
    assert screen.getvalue() == ""
    barred().fit(shown(), numbers(), ckpt_path=tmp_path / "middle.ckpt")
    text = screen.getvalue()
    assert "4/4" in last_drawing(text, "Epoch 0")
    assert "2/4" not in text
    assert "3/4" in text


def test_it_is_drawn_a_few_times_a_second_however_many_batches_there_are(terminal, monkeypatch, barred, shown, numbers):
    screen = terminal()
    monkeypatch.setattr(tqdm_progress, "REFRESH_SECONDS", 1e9)
    barred(on_nonfinite="ignore").fit(shown(), numbers(200))
    text = screen.getvalue()
    assert "50/100" not in text
    assert "100/100" in last_drawing(text, "Epoch 0")


def test_a_refresh_rate_leaves_batches_out(terminal, barred, shown, numbers):
    screen = terminal()
    barred(callbacks=L.callbacks.TQDMProgressBar(refresh_rate=3)).fit(shown(), numbers())
    text = screen.getvalue()
    assert "3/4" in text
    assert "2/4" not in text
    assert "4/4" in text, "the last batch is always drawn"


def test_a_refresh_rate_of_zero_shows_nothing(terminal, barred, shown, numbers, capsys):
    screen = terminal()
    barred(callbacks=L.callbacks.TQDMProgressBar(refresh_rate=0)).fit(shown(), numbers())
    assert screen.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_a_bar_stays_on_the_screen_on_request(terminal, barred, shown, numbers):
    screen = terminal()
    barred(max_epochs=2).fit(shown(), numbers())
    gone = screen.getvalue()
    screen.seek(0), screen.truncate()
    barred(max_epochs=2, callbacks=L.callbacks.TQDMProgressBar(leave=True)).fit(shown(), numbers())
    assert gone.count("\n") == 1
    assert screen.getvalue().count("\n") == 2


def test_without_a_terminal_each_epoch_is_one_line(barred, validated, numbers, capsys):
    barred(max_epochs=2).fit(validated(), numbers(), numbers(2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Epoch 0", "Epoch 1"]
    values = [set(line.split("  ")[1:]) for line in lines]
    assert values == [{"loss=0.1235", "val=7"}] * 2
    assert all(re.fullmatch(r"Epoch \d: [\d.]+ s  .*", line) for line in lines)


def test_without_a_terminal_a_resumed_epoch_has_its_line_too(barred, shown, numbers, capsys, tmp_path):
    class Saving(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.save_checkpoint(tmp_path / f"{batch_idx}.ckpt")

    barred(enable_progress_bar=False, callbacks=Saving()).fit(shown(), numbers())
    barred().fit(shown(), numbers(), ckpt_path=tmp_path / "1.ckpt")
    assert capsys.readouterr().err.startswith("Epoch 0: ")


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_without_a_terminal_other_verbs_print_no_line(barred, validated, numbers, capsys, verb):
    getattr(barred(), verb)(validated(), numbers())
    assert capsys.readouterr().err == ""


def test_no_bar_at_all(terminal, quiet, shown, numbers):
    screen = terminal()
    trainer = quiet(enable_progress_bar=False)
    trainer.fit(shown(), numbers())
    assert screen.getvalue() == ""
    assert trainer.progress_bar_callback is None


def test_what_is_printed_stands_above_the_bar(terminal, barred, tiny, numbers, capsys):
    screen = terminal()

    class Printing(tiny):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                self.print("from", "the step", sep="-")
                self.print("no line", end="; ")
                self.print("to the error stream", file=sys.stderr)
            return super().training_step(batch, batch_idx)

    barred().fit(Printing(), numbers())
    assert capsys.readouterr().out == "from-the step\nno line; "
    assert "to the error stream\n" in screen.getvalue()


def test_printing_without_a_bar_is_printing(barred, quiet, tiny, numbers, capsys):
    model = tiny()
    model.print("alone")
    for trainer in (quiet(), barred()):
        trainer.fit(model, numbers())
        model.print("after", 1, sep="-")
        trainer.print("trainer", end="!\n")
    assert capsys.readouterr().out == "alone\n" + "after-1\ntrainer!\n" * 2


def test_an_exception_leaves_the_terminal_in_order(terminal, barred, tiny, numbers):
    screen = terminal()

    class Failing(tiny):
        def training_step(self, batch, batch_idx):
            raise KeyError("mine")

    trainer = barred()
    with pytest.raises(KeyError, match="mine"):
        trainer.fit(Failing(), numbers())
    length = len(screen.getvalue())
    trainer.print("after")
    assert len(screen.getvalue()) == length


def test_a_real_terminal(monkeypatch, barred, shown, numbers):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        barred().fit(shown(), numbers())
        screen.flush()
        text = os.read(master, 65536).decode()
    os.close(master)
    drawing = last_drawing(text, "Epoch 0")
    assert "4/4" in drawing
    assert len(drawing) <= 100


def test_a_callback_of_one_s_own_takes_the_bar_s_place(barred, tiny, numbers, capsys):
    class Dots(L.callbacks.ProgressBar):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            print(".", end="")

    dots = Dots()
    trainer = barred(callbacks=dots)
    trainer.fit(tiny(), numbers())
    assert trainer.progress_bar_callback is dots
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("....", "")


def test_two_bars_or_a_bar_that_was_refused_are_errors(quiet):
    bar = L.callbacks.TQDMProgressBar
    with pytest.raises(MisconfigurationException, match="multiple progress bar callbacks"):
        quiet(enable_progress_bar=True, callbacks=[bar(), bar()])
    with pytest.raises(MisconfigurationException, match="`enable_progress_bar=False` but found `TQDMProgressBar`"):
        quiet(callbacks=[bar()])
    with pytest.raises(MisconfigurationValueError, match=r"`refresh_rate` must be 0 .* or more; got -1"):
        bar(refresh_rate=-1)


def test_a_bar_travels_with_copies_of_its_callback(terminal, barred, shown, numbers):
    terminal()
    copies = []

    class Copying(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            copies.append(pickle.loads(pickle.dumps(trainer.progress_bar_callback)))

    barred(callbacks=Copying()).fit(shown(), numbers())
    assert copies[0].refresh_rate == 1


def test_tqdm_is_loaded_by_the_first_bar_only(tmp_path):
    code = (
        "import sys, leyden.core as L; L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False);"
        "sys.exit('tqdm.auto' in sys.modules)"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
