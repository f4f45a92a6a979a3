import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from leyden.core.errors import (
    LoggerError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    NotYetSupported,
)
from leyden.core.loggers import CSVLogger


def test_rows_come_back_as_they_were_logged(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 0.1, "epoch": 0}, step=0)
    logger.log_metrics({"loss": 1 / 3, "epoch": 1}, step=5)
    logger.save()
    found = table(logger.log_dir)
    assert [row["step"] for row in found] == ["0", "5"]
    assert [float(row["loss"]) for row in found] == [0.1, 1 / 3]
    assert [row["epoch"] for row in found] == ["0", "1"]


def test_a_stacked_row_is_the_same_as_a_dict(tmp_path, table):
    stacked, separate = CSVLogger(tmp_path, "stacked"), CSVLogger(tmp_path, "separate")
    for step in range(3):
        values = torch.tensor([0.5 * step, 7.25, 2.0], dtype=torch.float64)
        stacked.log_rows(["loss", "accuracy", "epoch"], values, step)
        separate.log_metrics(dict(zip(["loss", "accuracy", "epoch"], values.tolist(), strict=True)), step)
    stacked.save()
    separate.save()
    assert table(stacked.log_dir) == table(separate.log_dir)
    assert table(stacked.log_dir)[1]["epoch"] == "2"


def test_rows_of_one_step_stand_in_one_line(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"train": 1.5, "epoch": 0}, step=9)
    logger.save()
    logger.log_metrics({"val": 2.5, "epoch": 0}, step=9)
    logger.log_metrics({"train": 0.5}, step=10)
    logger.log_metrics({"lr": 0.25}, step=10)
    logger.finalize("success")
    assert table(logger.log_dir) == [
        {"step": "9", "epoch": "0", "train": "1.5", "val": "2.5"},
        {"step": "10", "train": "0.5", "lr": "0.25"},
    ]


def test_a_value_logged_twice_at_one_step_is_not_overwritten(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_metrics({"loss": 2.0}, step=0)
    logger.save()
    assert [row["loss"] for row in table(logger.log_dir)] == ["1.0", "2.0"]


def test_columns_grow_without_touching_earlier_values(tmp_path, table):
    logger = CSVLogger(tmp_path)
    for step in range(20):
        logger.log_metrics({f"metric,{step}": step + 0.5, "common": step}, step)
        logger.save()
    found = table(logger.log_dir)
    assert [float(found[step][f"metric,{step}"]) for step in range(20)] == [step + 0.5 for step in range(20)]
    assert [int(row["common"]) for row in found] == list(range(20))
    assert sorted(path.name for path in Path(logger.log_dir).iterdir()) == ["metrics.csv"]


def test_step_and_epoch_are_the_first_columns(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"b": 1.0, "a": 2.0}, step=3)
    logger.save()
    assert (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0] == "step,epoch,b,a"


def test_special_numbers_and_number_types(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics(
        {
            "nan": float("nan"),
            "inf": float("inf"),
            "bool": True,
            "int": 2**53 + 1,
            "numpy": np.float32(0.5),
            "numpy_int": np.int64(3),
            "tensor": torch.tensor(0.25, requires_grad=True),
            "one": torch.tensor([[4]]),
            "half": torch.tensor(0.5, dtype=torch.bfloat16),
        },
        step=np.int64(1),
    )
    logger.save()
    (row,) = table(logger.log_dir)
    assert row == {
        "step": "1",
        "nan": "nan",
        "inf": "inf",
        "bool": "1",
        "int": str(2**53 + 1),
        "numpy": "0.5",
        "numpy_int": "3",
        "tensor": "0.25",
        "one": "4",
        "half": "0.5",
    }


def test_a_tensor_changed_after_the_call_does_not_change_the_row(tmp_path, table):
    logger, value = CSVLogger(tmp_path), torch.tensor(1.0)
    logger.log_metrics({"loss": value}, step=0)
    value.fill_(9.0)
    logger.save()
    assert table(logger.log_dir)[0]["loss"] == "1.0"


def test_without_a_step_rows_follow_one_another(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0})
    logger.log_metrics({"a": 2.0}, step=10)
    logger.log_metrics({"a": 3.0})
    logger.save()
    assert [row["step"] for row in table(logger.log_dir)] == ["0", "10", "11"]


def test_the_prefix_stands_before_every_metric(tmp_path, table):
    logger = CSVLogger(tmp_path, prefix="student")
    logger.log_metrics({"loss": 1.0, "epoch": 0}, step=0)
    logger.log_rows(["loss"], torch.tensor([2.0]), 1)
    logger.save()
    assert [row["student-loss"] for row in table(logger.log_dir)] == ["1.0", "2.0"]
    assert table(logger.log_dir)[0]["epoch"] == "0"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("high", MisconfigurationTypeError),
        (None, MisconfigurationTypeError),
        ([1.0], MisconfigurationTypeError),
        ({"a": 1.0}, MisconfigurationTypeError),
        (1j, MisconfigurationTypeError),
        (torch.ones(2), MisconfigurationValueError),
        (np.zeros((0,)), MisconfigurationValueError),
    ],
)
def test_what_is_no_number_is_refused_with_its_name(tmp_path, value, error):
    logger = CSVLogger(tmp_path)
    with pytest.raises(error, match="'val/acc'"):
        logger.log_metrics({"loss": 1.0, "val/acc": value}, step=0)
    assert not Path(logger.log_dir).exists()


@pytest.mark.parametrize("name", ["", "two\nlines", 3, None])
def test_what_can_not_be_a_name_is_refused(tmp_path, name):
    with pytest.raises((MisconfigurationTypeError, MisconfigurationValueError), match="name"):
        CSVLogger(tmp_path).log_metrics({name: 1.0}, step=0)


def test_other_wrong_arguments_are_refused(tmp_path):
    logger = CSVLogger(tmp_path)
    with pytest.raises(MisconfigurationTypeError, match="step"):
        logger.log_metrics({"a": 1.0}, step="3")
    with pytest.raises(MisconfigurationTypeError, match="metrics must be a mapping"):
        logger.log_metrics([1.0], step=3)
    with pytest.raises(MisconfigurationValueError, match="one value per name"):
        logger.log_rows(["a", "b"], torch.ones(3), 0)
    with pytest.raises(MisconfigurationTypeError, match="params"):
        logger.log_hyperparams([1, 2])
    with pytest.raises(MisconfigurationValueError, match="flush_logs_every_n_steps"):
        CSVLogger(tmp_path, flush_logs_every_n_steps=0)
    with pytest.raises(NotYetSupported, match="s3://bucket"):
        CSVLogger("s3://bucket/logs")


def test_the_version_is_the_next_free_number_and_the_folder_comes_with_the_first_row(tmp_path):
    (tmp_path / "lightning_logs" / "version_4").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_x").mkdir()
    (tmp_path / "lightning_logs" / "version_9").write_text("a file")
    logger = CSVLogger(tmp_path)
    assert logger.version == 5
    assert logger.log_dir == str(tmp_path / "lightning_logs" / "version_5")
    assert not Path(logger.log_dir).exists()
    logger.log_metrics({"a": 1.0}, step=0)
    assert Path(logger.log_dir).exists()


def test_folders_follow_name_and_version(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGS", str(tmp_path))
    assert CSVLogger(tmp_path, name="", version="trial").log_dir == str(tmp_path / "trial")
    assert CSVLogger("$LOGS", name="a/b", version=2).log_dir == str(tmp_path / "a" / "b" / "version_2")
    logger = CSVLogger(tmp_path, name="digits")
    assert (logger.name, logger.save_dir, logger.root_dir) == ("digits", str(tmp_path), str(tmp_path / "digits"))


def test_two_loggers_do_not_get_the_same_version(tmp_path, table):
    first, second = CSVLogger(tmp_path), CSVLogger(tmp_path)
    assert [first.version, second.version] == [0, 1]
    for number, logger in enumerate([first, second]):
        logger.log_metrics({"a": float(number)}, step=0)
        logger.save()
    assert [table(logger.log_dir)[0]["a"] for logger in (first, second)] == ["0.0", "1.0"]


def test_a_version_taken_by_another_process_meanwhile_is_left_alone(tmp_path, table, run_code):
    logger = CSVLogger(tmp_path)
    assert logger.version == 0
    run_code(
        """
        import sys
        from leyden.core.loggers import CSVLogger
        logger = CSVLogger(sys.argv[1])
        logger.log_metrics({"other": 1.0}, step=0)
        logger.finalize("success")
        """,
        tmp_path,
    )
    with pytest.warns(UserWarning, match="LY-L005.*version_1"):
        logger.log_metrics({"mine": 2.0}, step=0)
    logger.save()
    assert logger.version == 1
    assert table(tmp_path / "lightning_logs" / "version_0") == [{"step": "0", "other": "1.0"}]
    assert table(logger.log_dir) == [{"step": "0", "mine": "2.0"}]


def test_two_loggers_given_one_version_share_the_table(tmp_path, table):
    one, two = CSVLogger(tmp_path, version=0), CSVLogger(tmp_path, version=0)
    for step in range(50):
        one.log_metrics({"one": float(step)}, step)
        two.log_metrics({"two": float(step)}, step)
        if step % 7 == 0:
            one.save()
            two.save()
    one.save()
    two.save()
    found = table(one.log_dir)
    assert sorted(float(row["one"]) for row in found if "one" in row) == list(range(50))
    assert sorted(float(row["two"]) for row in found if "two" in row) == list(range(50))


def test_a_version_that_is_given_goes_on_at_its_end(tmp_path, table):
    for value in (1.0, 2.0):
        logger = CSVLogger(tmp_path, version="mine")
        logger.log_metrics({"a": value}, step=int(value))
        logger.finalize("success")
    assert [row["a"] for row in table(logger.log_dir)] == ["1.0", "2.0"]


def test_logging_after_finalize_goes_on_with_the_same_run(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"fit": 1.0}, step=0)
    logger.finalize("success")
    logger.log_metrics({"test": 2.0}, step=1)
    logger.finalize("success")
    assert table(logger.log_dir) == [{"step": "0", "fit": "1.0"}, {"step": "1", "test": "2.0"}]


def test_a_new_run_gets_a_new_version(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, step=7)
    logger.new_run()
    logger.log_metrics({"a": 2.0})
    logger.save()
    assert logger.version == 1
    assert table(logger.log_dir) == [{"step": "0", "a": "2.0"}]
    assert table(tmp_path / "lightning_logs" / "version_0") == [{"step": "7", "a": "1.0"}]


def test_a_copy_carries_configuration_and_version_only(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.log_dir == logger.log_dir
    copy.log_metrics({"a": 2.0}, step=1)
    copy.save()
    logger.log_metrics({"a": 3.0}, step=2)
    logger.save()
    assert [row["a"] for row in table(logger.log_dir)] == ["1.0", "2.0", "3.0"]


def test_a_forked_worker_writes_nothing(table, run_code, tmp_path):
    run_code(
        """
        import os, sys
        from leyden.core.loggers import CSVLogger
        logger = CSVLogger(sys.argv[1], version=0)
        logger.log_metrics({"a": 1.0}, step=0)
        child = os.fork()
        if child == 0:
            logger.log_metrics({"a": 2.0}, step=1)
            logger.log_hyperparams({"child": True})
            logger.save()
            logger.finalize("success")
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        logger.log_metrics({"a": 3.0}, step=2)
        """,
        tmp_path,
    )
    folder = tmp_path / "lightning_logs" / "version_0"
    assert [row["a"] for row in table(folder)] == ["1.0", "3.0"]
    assert not (folder / "hparams.yaml").exists()


def test_hyperparameters_are_plain_yaml(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1, "path": Path("a/b"), "sizes": (1, 2)})
    logger.log_hyperparams({"lr": 0.2, "extra": None})
    found = yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())
    assert found == {"lr": 0.2, "path": "a/b", "sizes": [1, 2], "extra": None}


def test_a_folder_that_can_not_be_written_is_named(run_code):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        answer = run_code(
            """
            import os, sys
            from leyden.core.errors import LoggerError
            from leyden.core.loggers import CSVLogger
            logger = CSVLogger(sys.argv[1])
            if os.geteuid() == 0:
                os.setuid(65534)  # root may write everywhere
            try:
                logger.log_metrics({"a": 1.0}, step=0)
            except LoggerError as error:
                print(error)
            """,
            folder,
        )
    assert f"CSVLogger can not write to {folder}/lightning_logs/version_0" in answer


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(LoggerError, match="logs"):
        CSVLogger(tmp_path / "logs").log_metrics({"a": 1.0}, step=0)


def test_rows_go_on_after_the_folder_was_deleted(tmp_path, table):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    (Path(logger.log_dir) / "metrics.csv").unlink()
    Path(logger.log_dir).rmdir()
    logger.log_metrics({"a": 2.0}, step=1)
    logger.save()
    assert table(logger.log_dir) == [{"step": "1", "a": "2.0"}]


def test_a_row_does_not_wait_for_the_device(tmp_path, table):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logger = CSVLogger(tmp_path)
    values = torch.arange(4.0, device=device)
    logger.log_rows(["a", "b", "c", "d"], values, 0)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        logger.log_rows(["a", "b", "c", "d"], values * 2, 1)
        logger.log_metrics({"a": values[3]} if device.type == "cuda" else {"a": 3.0}, 2)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    logger.save()
    assert [row["a"] for row in table(logger.log_dir)] == ["0.0", "0.0", "3.0"]
    assert table(logger.log_dir)[1]["d"] == "6.0"
