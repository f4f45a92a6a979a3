"""OnExceptionCheckpoint: the file of a run that failed, and its end."""

import pytest

from leyden.core.callbacks import OnExceptionCheckpoint

# the fixture's trainer saves nothing by itself
KEEPS = {"enable_checkpointing": None}


@pytest.fixture
def fragile(tiny):
    class Fragile(tiny):
        def __init__(self, fails_at=None):
            super().__init__()
            self.fails_at = fails_at

        def training_step(self, batch, batch_idx):
            if self.global_step == self.fails_at:
                raise RuntimeError("by accident")
            return super().training_step(batch, batch_idx)

    return Fragile


def test_a_failed_run_goes_on_from_its_file_and_a_good_end_removes_it(quiet, fragile, numbers, tmp_path):
    saver = OnExceptionCheckpoint(tmp_path / "new", "failed")
    assert saver.ckpt_path == str(tmp_path / "new" / "failed.ckpt")
    with pytest.raises(RuntimeError, match="by accident"):
        quiet(**KEEPS, callbacks=saver, max_epochs=2).fit(fragile(fails_at=5), numbers(8))
    assert (tmp_path / "new" / "failed.ckpt").is_file()
    straight, resumed = fragile(), fragile()
    quiet(max_epochs=2).fit(straight, numbers(8))
    trainer = quiet(**KEEPS, callbacks=OnExceptionCheckpoint(tmp_path / "new", "failed"), max_epochs=2)
    trainer.fit(resumed, numbers(8), ckpt_path=saver.ckpt_path)
    assert trainer.global_step == 8
    assert resumed.weight.item() == straight.weight.item()
    assert not (tmp_path / "new" / "failed.ckpt").exists()


def test_a_run_that_fails_before_training_leaves_the_file_alone(quiet, fragile, numbers, tmp_path):
    saver = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="by accident"):
        quiet(**KEEPS, callbacks=saver).fit(fragile(fails_at=2), numbers(8))
    before = (tmp_path / "on_exception.ckpt").read_bytes()

    class Broken(fragile):
        def configure_optimizers(self):
            raise RuntimeError("no optimizer")

    with pytest.raises(RuntimeError, match="no optimizer"):
        quiet(**KEEPS, callbacks=OnExceptionCheckpoint(tmp_path)).fit(Broken(), numbers(8), ckpt_path=saver.ckpt_path)
    assert (tmp_path / "on_exception.ckpt").read_bytes() == before


def test_a_try_run_saves_nothing(quiet, fragile, numbers, tmp_path):
    with pytest.raises(RuntimeError, match="by accident"):
        quiet(**KEEPS, callbacks=OnExceptionCheckpoint(tmp_path), fast_dev_run=True).fit(
            fragile(fails_at=0), numbers(8)
        )
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_name_is_needed():
    with pytest.raises(ValueError, match="The filename cannot be empty"):
        OnExceptionCheckpoint(".", "")
