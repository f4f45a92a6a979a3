"""A resumed run continues its version: nothing is lost and nothing stands twice."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.core.loggers import CSVLogger


def train(logger, steps):
    """A training row at each step and a validation row at every third, as a Trainer writes them."""
    for step in steps:
        logger.log_metrics({"loss": step * 0.5, "epoch": step // 3}, step)
        if step % 3 == 2:
            logger.log_metrics({"val": step * 2.0, "epoch": step // 3}, step)
        if step > 6:
            logger.log_metrics({"late_column": 1.0}, step)


def uninterrupted(tmp_path, steps, table):
    logger = CSVLogger(tmp_path / "reference")
    train(logger, steps)
    logger.save()
    return table(logger.log_dir)


def test_rows_after_the_state_are_dropped_and_written_once(tmp_path, table):
    first = CSVLogger(tmp_path)
    train(first, range(5))
    state = first.state_dict()
    train(first, range(5, 10))
    first.finalize("failed")

    second = CSVLogger(tmp_path)
    second.load_state_dict(state)
    assert second.log_dir == first.log_dir
    train(second, range(5, 10))
    second.finalize("success")
    assert table(second.log_dir) == uninterrupted(tmp_path, range(10), table)


def test_a_state_between_two_rows_of_one_step_is_exact(tmp_path, table):
    first = CSVLogger(tmp_path)
    first.log_metrics({"loss": 1.0}, step=2)
    state = first.state_dict()
    first.log_metrics({"val": 5.0}, step=2)
    first.finalize("failed")

    second = CSVLogger(tmp_path)
    second.load_state_dict(state)
    second.save()
    assert table(second.log_dir) == [{"step": "2", "loss": "1.0"}]
    second.log_metrics({"val": 6.0}, step=2)
    second.save()
    assert table(second.log_dir) == [{"step": "2", "loss": "1.0", "val": "6.0"}]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4)), max_size=4))
def test_any_chain_of_interruptions_gives_the_table_of_an_uninterrupted_run(tmp_path_factory, table, cuts):
    folder = tmp_path_factory.mktemp("chain")
    logger, at = CSVLogger(folder), 0
    for saved, beyond in sorted(cuts):
        train(logger, range(at, saved))
        logger.log_hyperparams({})
        state = logger.state_dict()
        train(logger, range(saved, saved + beyond))
        logger.finalize("interrupted")
        logger, at = CSVLogger(folder), saved
        logger.load_state_dict(state)
    train(logger, range(at, 12))
    logger.finalize("success")
    assert table(logger.log_dir) == uninterrupted(folder, range(12), table)
    assert logger.version == 0


def test_the_same_object_can_go_back(tmp_path, table):
    logger = CSVLogger(tmp_path)
    train(logger, range(5))
    state = logger.state_dict()
    train(logger, range(5, 8))
    logger.load_state_dict(state)
    train(logger, range(5, 10))
    logger.save()
    assert table(logger.log_dir) == uninterrupted(tmp_path, range(10), table)


def test_a_state_before_the_first_row_drops_all_rows(tmp_path, table):
    first = CSVLogger(tmp_path)
    first.log_hyperparams({"lr": 0.1})
    state = first.state_dict()
    train(first, range(3))
    first.finalize("failed")
    second = CSVLogger(tmp_path)
    second.load_state_dict(state)
    train(second, range(10))
    second.save()
    assert second.version == 0
    assert table(second.log_dir) == uninterrupted(tmp_path, range(10), table)


def test_a_resumed_run_that_has_not_logged_yet_keeps_its_identity(tmp_path):
    first = CSVLogger(tmp_path)
    train(first, range(5))
    state = first.state_dict()
    second = CSVLogger(tmp_path)
    second.load_state_dict(state)
    assert second.state_dict() == state


def test_a_logger_that_wrote_nothing_has_no_state(tmp_path):
    logger = CSVLogger(tmp_path)
    assert logger.state_dict() == {}
    logger.load_state_dict({})
    assert not Path(logger.log_dir).exists()


def test_the_state_is_plain_data(tmp_path):
    logger = CSVLogger(tmp_path)
    train(logger, range(4))
    torch.save(logger.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == logger.state_dict()


@pytest.mark.parametrize("logged", [0, 5])
def test_another_runs_table_is_left_alone(tmp_path, table, logged):
    first = CSVLogger(tmp_path / "here")
    first.log_hyperparams({})
    train(first, range(logged))
    state = first.state_dict()
    other = CSVLogger(tmp_path / "there")
    for step in range(20):
        other.log_metrics({"something": 1.0}, step)
    other.finalize("success")
    before = table(other.log_dir)

    resumed = CSVLogger(tmp_path / "there")
    with pytest.warns(UserWarning, match="LY-L003"):
        resumed.load_state_dict(state)
    resumed.log_metrics({"loss": 2.5}, step=5)
    resumed.save()
    assert table(other.log_dir) == before
    assert table(resumed.log_dir) == [{"step": "5", "loss": "2.5"}]
    assert resumed.version == 1


def test_a_run_that_moved_without_its_files_keeps_its_number(tmp_path, table):
    first = CSVLogger(tmp_path / "here", version=3)
    train(first, range(5))
    moved = CSVLogger(tmp_path / "there")
    with pytest.warns(UserWarning, match="LY-L004.*0 of the 5 rows"):
        moved.load_state_dict(first.state_dict())
    moved.log_metrics({"loss": 2.5}, step=5)
    moved.save()
    assert moved.log_dir == str(tmp_path / "there" / "lightning_logs" / "version_3")
    assert table(moved.log_dir) == [{"step": "5", "loss": "2.5"}]


def test_a_version_that_the_user_gives_wins_over_the_states(tmp_path, table):
    first = CSVLogger(tmp_path)
    train(first, range(5))
    state = first.state_dict()
    second = CSVLogger(tmp_path, version="again")
    second.load_state_dict(state)
    second.log_metrics({"loss": 1.0}, step=3)
    second.save()
    assert second.version == "again"
    assert len(table(first.log_dir)) == 5
    assert len(table(second.log_dir)) == 1
