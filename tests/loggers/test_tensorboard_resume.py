"""A resumed run continues its version: nothing is lost and nothing stands twice."""

from pathlib import Path

import pytest
import torch

from leyden.loggers import TensorBoardLogger


def train(logger, steps):
    for step in steps:
        logger.log_metrics({"loss": float(step)}, step)
        if step % 3 == 2:
            logger.log_metrics({"val": 2.0 * step}, step)
            # An axis of one's own, far ahead of the steps.
            logger.experiment.add_scalar("tokens", float(step), step * 1000)


def expected(steps):
    return {
        "loss": [(step, float(step)) for step in steps],
        "val": [(step, 2.0 * step) for step in steps if step % 3 == 2],
        "tokens": [(step * 1000, float(step)) for step in steps if step % 3 == 2],
    }


def test_rows_after_the_state_are_dropped_and_written_once(tmp_path, scalars, shown):
    first = TensorBoardLogger(tmp_path)
    train(first, range(5))
    state = first.state_dict()
    train(first, range(5, 10))
    first.finalize("failed")

    second = TensorBoardLogger(tmp_path)
    second.load_state_dict(state)
    assert second.log_dir == first.log_dir
    train(second, range(5, 10))
    second.finalize("success")
    assert scalars(second.log_dir) == expected(range(10))
    assert shown(second.log_dir) == expected(range(10))


def test_several_resumes_from_one_state_leave_one_history(tmp_path, scalars, shown):
    first = TensorBoardLogger(tmp_path)
    train(first, range(3))
    first.log_metrics({"loss": 3.0}, 3)
    state = first.state_dict()
    first.log_metrics({"val": 99.0}, 3)
    for beyond in (4, 6, 5):
        again = TensorBoardLogger(tmp_path)
        again.load_state_dict(state)
        train(again, range(4, beyond))
        again.finalize("interrupted")
    last = TensorBoardLogger(tmp_path)
    last.load_state_dict(state)
    train(last, range(4, 9))
    middle = last.state_dict()
    train(last, range(9, 12))
    last.finalize("failed")
    end = TensorBoardLogger(tmp_path)
    end.load_state_dict(middle)
    train(end, range(9, 10))
    end.finalize("success")
    assert scalars(end.log_dir) == expected(range(10))
    assert shown(end.log_dir) == expected(range(10))


def test_a_state_before_the_first_row(tmp_path, scalars):
    first = TensorBoardLogger(tmp_path)
    first.log_hyperparams({"lr": 0.1})
    state = first.state_dict()
    train(first, range(4))
    first.finalize("failed")
    second = TensorBoardLogger(tmp_path)
    second.load_state_dict(state)
    train(second, range(6))
    second.finalize("success")
    assert second.version == 0
    assert scalars(second.log_dir) == expected(range(6))


def test_a_resumed_run_that_has_not_logged_yet_keeps_its_identity(tmp_path):
    first = TensorBoardLogger(tmp_path)
    train(first, range(5))
    state = first.state_dict()
    second = TensorBoardLogger(tmp_path)
    second.load_state_dict(state)
    again = second.state_dict()
    assert [again[key] for key in ("version", "run", "last_step")] == [
        state[key] for key in ("version", "run", "last_step")
    ]


def test_the_state_is_plain_data_and_empty_before_the_first_write(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    assert logger.state_dict() == {}
    train(logger, range(4))
    torch.save(logger.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == logger.state_dict()


def test_files_of_other_runs_and_loggers_are_left_alone(tmp_path, scalars):
    first = TensorBoardLogger(tmp_path / "here")
    train(first, range(5))
    state = first.state_dict()
    other = TensorBoardLogger(tmp_path / "there")
    train(other, range(8))
    other.finalize("success")

    resumed = TensorBoardLogger(tmp_path / "there")
    with pytest.warns(UserWarning, match="LY-L003"):
        resumed.load_state_dict(state)
    resumed.log_metrics({"loss": 1.0}, 5)
    resumed.finalize("success")
    assert resumed.version == 1
    assert scalars(other.log_dir) == expected(range(8))
    assert scalars(resumed.log_dir) == {"loss": [(5, 1.0)]}


def test_two_loggers_in_one_folder_resume_each_their_own(tmp_path, scalars):
    def pair():
        return TensorBoardLogger(tmp_path, version=0), TensorBoardLogger(tmp_path, version=0)

    first = pair()
    for logger, tag in zip(first, "ab", strict=True):
        logger.log_metrics({tag: 0.0}, 0)
    states = [logger.state_dict() for logger in first]
    for logger, tag in zip(first, "ab", strict=True):
        logger.log_metrics({tag: 1.0}, 1)
        logger.finalize("failed")
    second = pair()
    for logger, state in zip(second, states, strict=True):
        logger.load_state_dict(state)
    for logger, tag in zip(second, "ab", strict=True):
        logger.log_metrics({tag: 1.0}, 1)
        logger.finalize("success")
    assert scalars(tmp_path / "lightning_logs" / "version_0") == {tag: [(0, 0.0), (1, 1.0)] for tag in "ab"}


def test_a_run_that_moved_without_its_files_keeps_its_number(tmp_path, scalars):
    first = TensorBoardLogger(tmp_path / "here", version=3)
    train(first, range(3))
    moved = TensorBoardLogger(tmp_path / "there")
    with pytest.warns(UserWarning, match="LY-L004"):
        moved.load_state_dict(first.state_dict())
    moved.log_metrics({"loss": 3.0}, 3)
    moved.finalize("success")
    assert moved.version == 3
    assert scalars(moved.log_dir) == {"loss": [(3, 3.0)]}


@pytest.mark.reliability
def test_rows_are_on_disk_soon_and_a_kill_leaves_whole_records(tmp_path, scalars, start):
    folder = tmp_path / "lightning_logs" / "version_0"
    process = start(
        """
        import sys, time
        from leyden.loggers import TensorBoardLogger
        logger = TensorBoardLogger(sys.argv[1], version=0)
        for step in range(10**9):
            logger.log_metrics({"loss": float(step)}, step)
            if step == 99:
                print("waiting", flush=True)
                sys.stdin.read(1)
            time.sleep(0.0002)
        """,
        tmp_path,
        stdin=-1,
    )
    assert process.stdout.readline() == "waiting\n"
    while not folder.exists() or len(scalars(folder).get("loss", [])) < 100:
        assert process.poll() is None
    process.stdin.write("g")
    process.stdin.flush()
    while len(scalars(folder)["loss"]) < 1500:
        assert process.poll() is None
    process.kill()
    process.wait()
    found = scalars(folder)["loss"]
    assert found == [(step, float(step)) for step in range(len(found))]


@pytest.mark.reliability
def test_no_row_is_lost_to_a_full_disk(tmp_path, scalars, run_code):
    rows = run_code(
        """
        import resource, sys, time
        from leyden.core.errors import LoggerError
        from leyden.loggers import TensorBoardLogger

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        logger, errors, step = TensorBoardLogger(sys.argv[1], version=0, flush_secs=0.05), [], 0
        logger.log_metrics({"loss": 0.0}, 0)
        logger.save()
        limit(4096)
        while not errors or step < 2000:
            step += 1
            try:
                logger.log_metrics({"loss": float(step)}, step)
            except LoggerError as error:
                errors.append(error)
            time.sleep(0.0002)
        assert len(errors) == 1, errors
        limit(resource.RLIM_INFINITY)
        logger.finalize("success")
        print(step + 1)
        """,
        tmp_path,
    )
    found = scalars(tmp_path / "lightning_logs" / "version_0")["loss"]
    assert found == [(step, float(step)) for step in range(int(rows))]


def test_a_new_file_comes_last_even_if_the_clock_went_back(tmp_path, shown):
    first = TensorBoardLogger(tmp_path, version=0)
    first.log_metrics({"a": 1.0}, 0)
    first.finalize("success")
    (path,) = Path(first.log_dir).iterdir()
    stamp = path.name.split(".")[3]
    path.replace(path.with_name(path.name.replace(stamp, str(int(stamp) + 10_000))))
    second = TensorBoardLogger(tmp_path, version=0)
    second.log_metrics({"a": 2.0}, 1)
    second.finalize("success")
    assert shown(first.log_dir) == {"a": [(0, 1.0), (1, 2.0)]}
