"""The bar in colour: what stands on the screen, and what it does where there is none."""

import io
import pickle
import re
import threading

import pytest

import leyden.core as L
from leyden.core.callbacks import RichProgressBar
from leyden.core.callbacks.progress import rich_progress
from leyden.core.callbacks.progress.rich_progress import RichProgressBarTheme
from leyden.core.errors import MissingExtraError


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setattr(rich_progress, "REFRESH_SECONDS", 0.0)
    return io.StringIO()


@pytest.fixture
def bar(screen):
    console = {"file": screen, "force_terminal": True, "width": 120, "color_system": None}
    return lambda **arguments: RichProgressBar(console_kwargs=console, **{"refresh_rate": 10**9, **arguments})


@pytest.fixture
def model(tiny):
    class Shown(tiny):
        def training_step(self, batch, batch_idx):
            self.log("loss", 0.123456, prog_bar=True)
            return super().training_step(batch, batch_idx)

    return Shown()


@pytest.fixture
def validated(model):
    class Validated(type(model)):
        def validation_step(self, batch, batch_idx):
            self.log("val", 7.0, prog_bar=True)

        def test_step(self, batch, batch_idx, dataloader_idx=0): ...

        def predict_step(self, batch, batch_idx): ...

    return Validated()


@pytest.fixture
def trainer(quiet):
    return lambda bar, **flags: quiet(enable_progress_bar=True, callbacks=bar, **{"num_sanity_val_steps": 0, **flags})


def drawings(screen, title):
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return [line for line in plain.replace("\r", "\n").splitlines() if line.startswith(title)]


def test_each_epoch_counts_to_its_end_and_shows_its_values(trainer, bar, screen, validated, numbers):
    trainer(bar(), max_epochs=2).fit(validated, numbers(), numbers(2))
    for epoch in range(2):
        last = drawings(screen, f"Epoch {epoch}/1")[-1]
        assert "4/4" in last
        assert "loss: 0.123 val: 7.000" in last
    assert any("1/1" in line for line in drawings(screen, "Validation"))


def test_the_sanity_check_has_a_bar(trainer, bar, screen, validated, numbers):
    trainer(bar(), num_sanity_val_steps=1).fit(validated, numbers(), numbers())
    assert drawings(screen, "Sanity Checking")


@pytest.mark.parametrize(
    ("verb", "title"), [("validate", "Validation"), ("test", "Testing"), ("predict", "Predicting")]
)
def test_each_verb_has_a_bar(trainer, bar, screen, validated, numbers, verb, title):
    getattr(trainer(bar()), verb)(validated, numbers())
    assert " 4/" in drawings(screen, title)[-1]


def test_data_without_a_length_have_a_bar_without_an_end(trainer, bar, screen, model, numbers):
    trainer(bar()).fit(model, (batch for batch in numbers()))
    assert "4/--" in drawings(screen, "Epoch 0")[-1]


def test_bars_that_stay_and_bars_that_go(trainer, bar, screen, model, numbers):
    trainer(bar(leave=True), max_epochs=2).fit(model, numbers())
    stayed = [line for line in drawings(screen, "Epoch 0") if "4/4" in line]
    assert stayed


def test_the_theme_formats_the_values(trainer, bar, screen, validated, numbers):
    theme = RichProgressBarTheme(metrics_format=".1e", metrics_text_delimiter=" | ")
    trainer(bar(theme=theme)).fit(validated, numbers(), numbers())
    assert "loss: 1.2e-01 | val: 7.0e+00" in drawings(screen, "Epoch 0")[-1]


def test_a_refresh_rate_of_zero_shows_nothing(trainer, bar, screen, model, numbers, capsys):
    trainer(bar(refresh_rate=0)).fit(model, numbers())
    assert (screen.getvalue(), capsys.readouterr().err) == ("", "")


def test_without_a_terminal_each_epoch_is_one_line(trainer, model, numbers, capsys):
    trainer(RichProgressBar(), max_epochs=2).fit(model, numbers())
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["Epoch 0", "Epoch 1"]


def test_columns_of_one_s_own(trainer, bar, screen, model, numbers):
    from rich.progress import TextColumn

    class Plain(type(bar())):
        def configure_columns(self, trainer):
            return [TextColumn("so far {task.completed}")]

    console = {"file": screen, "force_terminal": True, "width": 80, "color_system": None}
    trainer(Plain(console_kwargs=console)).fit(model, numbers())
    assert drawings(screen, "so far 4")


def test_an_exception_ends_the_display_and_no_thread_draws_it(trainer, bar, screen, tiny, numbers):
    threads = []

    class Failing(tiny):
        def training_step(self, batch, batch_idx):
            threads.append(threading.active_count())
            raise KeyError("mine")

    before, shown = threading.active_count(), bar()
    with pytest.raises(KeyError, match="mine"):
        trainer(shown).fit(Failing(), numbers())
    assert threads == [before]
    assert shown.progress is None


def test_it_travels_with_copies_of_the_callback(trainer, bar, model, numbers):
    copies = []

    class Copying(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            shown = trainer.progress_bar_callback
            copies.append(pickle.loads(pickle.dumps(RichProgressBar(shown.refresh_rate, theme=shown.theme))))
            assert shown.train_progress_bar.total == 4

    trainer([bar(), Copying()]).fit(model, numbers())
    assert copies[0].is_enabled


def test_without_rich_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(rich_progress, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"`RichProgressBar` requires `rich`.*leyden-core\[rich\]"):
        RichProgressBar()
