"""Kills, full disks and slow disks."""

import time
from pathlib import Path

import pytest

from leyden.core.errors import LoggerError
from leyden.core.loggers import CSVLogger
from leyden.core.loggers.writer import BackgroundWriter

pytestmark = pytest.mark.reliability

WRITE_FOREVER = """
import sys, time
from leyden.core.loggers import CSVLogger
logger = CSVLogger(sys.argv[1], version=0)
for step in range(100):
    logger.log_metrics({"loss": step * 0.5}, step)
print("waiting", flush=True)
sys.stdin.read(1)
for step in range(100, 10**9):
    logger.log_metrics({"loss": step * 0.5, f"column_{step // 1000}": 1.0}, step)
    time.sleep(0.0002)
"""


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_rows_are_on_disk_soon_without_a_save_and_survive_a_kill(tmp_path, table, start):
    folder = tmp_path / "lightning_logs" / "version_0"
    process = start(WRITE_FOREVER, tmp_path, stdin=-1)
    assert process.stdout.readline() == "waiting\n"
    wait_for(lambda: (folder / "metrics.csv").exists() and len(table(folder)) == 100)
    process.kill()
    process.wait()
    assert [float(row["loss"]) for row in table(folder)] == [step * 0.5 for step in range(100)]


@pytest.mark.parametrize("rows", [200, 1500, 2600])
def test_a_kill_while_writing_leaves_a_prefix_that_can_be_continued(tmp_path, table, start, rows):
    folder = tmp_path / "lightning_logs" / "version_0"
    process = start(WRITE_FOREVER, tmp_path, stdin=-1)
    assert process.stdout.readline() == "waiting\n"
    process.stdin.write("g")
    process.stdin.flush()
    path = folder / "metrics.csv"
    wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") > rows)
    process.kill()
    process.wait()

    logger = CSVLogger(tmp_path, version=0)
    logger.log_metrics({"loss": -1.0}, step=10**9)
    logger.save()
    found = [float(row["loss"]) for row in table(folder)]
    assert len(found) > rows
    assert found == [step * 0.5 for step in range(len(found) - 1)] + [-1.0]


def test_what_is_logged_before_a_normal_exit_is_written(tmp_path, table, run_code):
    run_code(
        """
        import sys
        from leyden.core.loggers import CSVLogger
        logger = CSVLogger(sys.argv[1], version=0)
        for step in range(10):
            logger.log_metrics({"loss": float(step)}, step)
        sys.exit()
        """,
        tmp_path,
    )
    assert len(table(tmp_path / "lightning_logs" / "version_0")) == 10


def test_what_a_dropped_logger_holds_is_written(tmp_path, table):
    logger = CSVLogger(tmp_path, version=0)
    logger.log_metrics({"loss": 1.0}, step=0)
    del logger
    wait_for(lambda: len(table(tmp_path / "lightning_logs" / "version_0")) == 1)


def test_a_full_disk_is_told_once_and_no_row_is_lost(tmp_path, table, run_code):
    answer = run_code(
        """
        import resource, sys, time
        from leyden.core.errors import LoggerError
        from leyden.core.loggers import CSVLogger

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        logger = CSVLogger(sys.argv[1], version=0)
        logger.log_metrics({"loss": 0.0}, 0)
        logger.save()
        limit(4096)
        errors, step = [], 1
        end = time.monotonic() + 3.5
        while time.monotonic() < end or not errors:
            try:
                logger.log_metrics({"loss": float(step)}, step)
            except LoggerError as error:
                errors.append(str(error))
            step += 1
            time.sleep(0.001)
        limit(resource.RLIM_INFINITY)
        logger.finalize("success")
        print(step, len(errors), errors[0])
        """,
        tmp_path,
    )
    rows, errors, message = answer.split(" ", 2)
    assert errors == "1"
    assert str(tmp_path) in message
    assert "rows wait" in message
    found = table(tmp_path / "lightning_logs" / "version_0")
    assert [row["loss"] for row in found] == [f"{float(step)}" for step in range(int(rows))]


class Disk:
    """A place to write to that can be full."""

    def __init__(self):
        self.full, self.items = False, []

    def write(self, items):
        if self.full:
            raise OSError("no space left")
        self.items += items


def test_a_writer_keeps_the_order_over_an_outage():
    disk = Disk()
    writer = BackgroundWriter(disk.write, "disk", interval=0.01)
    writer.put(0)
    writer.flush()
    disk.full = True
    writer.put(1)
    with pytest.raises(LoggerError, match=r"disk.*no space left.*1 rows wait"):
        writer.flush()
    writer.put(2)
    disk.full = False
    writer.close()
    assert disk.items == [0, 1, 2]


def test_a_writer_that_can_not_write_drops_the_oldest_and_says_how_many():
    disk = Disk()
    disk.full = True
    writer = BackgroundWriter(disk.write, "disk", interval=60.0, batch=10**6, limit=10)
    for item in range(25):
        writer.put(item)
    with pytest.raises(LoggerError, match="15 rows were lost; 10 rows wait"):
        writer.flush()
    disk.full = False
    writer.close()
    assert disk.items == list(range(15, 25))


def test_a_row_that_can_not_be_written_at_all_does_not_block_the_next():
    written = []

    def write(items):
        if "bad" in items:
            raise ValueError("not a row")
        written.extend(items)

    writer = BackgroundWriter(write, "disk", interval=60.0)
    writer.put("bad")
    with pytest.raises(LoggerError, match=r"not a row.*1 rows were lost"):
        writer.flush()
    writer.put("good")
    writer.close()
    assert written == ["good"]


def test_a_writer_can_be_used_again_after_it_was_closed():
    disk = Disk()
    writer = BackgroundWriter(disk.write, "disk", interval=0.01)
    for item in range(3):
        writer.put(item)
        writer.close()
    assert disk.items == [0, 1, 2]


def test_hyperparameters_are_replaced_whole(tmp_path):
    logger = CSVLogger(tmp_path)
    for size in (1000, 1):
        logger.log_hyperparams({"text": "x" * size})
    folder = Path(logger.log_dir)
    assert (folder / "hparams.yaml").read_text() == "text: x\n"
    assert sorted(path.name for path in folder.iterdir()) == ["hparams.yaml", "metrics.csv"]
