import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from leyden.core.errors import LoggerError, MisconfigurationTypeError, MisconfigurationValueError, MissingExtraError
from leyden.core.loggers import CSVLogger as CoreCSVLogger
from leyden.core.loggers import DummyExperiment, default_logger, find_logger
from leyden.loggers import CSVLogger, TensorBoardLogger


def test_a_row_is_one_event_with_all_its_tags(tmp_path, events):
    logger = TensorBoardLogger(tmp_path)
    logger.log_rows(["loss", "accuracy"], torch.tensor([0.5, 0.25]), 7)
    logger.log_metrics({"val": torch.tensor(2.0), "epoch": 3}, step=8)
    logger.finalize("success")
    header, *rows = events(logger.log_dir)
    assert header.file_version == "brain.Event:2"
    assert [(row.step, {v.tag: v.simple_value for v in row.summary.value}) for row in rows] == [
        (7, {"loss": 0.5, "accuracy": 0.25}),
        (8, {"val": 2.0, "epoch": 3.0}),
    ]
    assert rows[1].wall_time >= rows[0].wall_time > 1.7e9


def test_special_numbers_come_back(tmp_path, scalars):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"inf": float("inf"), "nan": float("nan"), "numpy": np.float64(0.5), "int": 10**6}, step=2**40)
    logger.save()
    found = scalars(logger.log_dir)
    assert found["inf"] == [(2**40, float("inf"))]
    assert np.isnan(found["nan"][0][1])
    assert found["numpy"] == [(2**40, 0.5)]
    assert found["int"] == [(2**40, 1e6)]


def test_folders_follow_name_version_and_sub_dir(tmp_path):
    (tmp_path / "digits" / "version_2").mkdir(parents=True)
    logger = TensorBoardLogger(tmp_path, name="digits", sub_dir="train")
    assert logger.version == 3
    assert logger.log_dir == str(tmp_path / "digits" / "version_3" / "train")
    assert (logger.name, logger.sub_dir, logger.save_dir) == ("digits", "train", str(tmp_path))
    assert logger.root_dir == str(tmp_path / "digits")
    assert not Path(logger.log_dir).exists()
    logger.log_metrics({"a": 1.0}, step=0)
    assert Path(logger.log_dir).exists()
    assert TensorBoardLogger(tmp_path, name="", version="trial").log_dir == str(tmp_path / "trial")


def test_the_prefix_stands_before_every_tag(tmp_path, scalars):
    logger = TensorBoardLogger(tmp_path, prefix="student")
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    assert scalars(logger.log_dir) == {"student-loss": [(0, 1.0)]}


def test_steps_of_a_tag_never_go_back(tmp_path, scalars, shown):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"train": 1.0, "both": 1.0}, step=10)
    logger.log_metrics({"val": 2.0, "both": 2.0}, step=5)
    logger.log_metrics({"both": 3.0}, step=11)
    with pytest.warns(UserWarning, match="LY-L006"):
        logger.save()
    expected = {"train": [(10, 1.0)], "both": [(10, 1.0), (10, 2.0), (11, 3.0)], "val": [(5, 2.0)]}
    assert scalars(logger.log_dir) == expected
    assert shown(logger.log_dir)["both"] == expected["both"]


@pytest.mark.parametrize("value", ["high", None, torch.ones(2), {"a": 1.0}])
def test_what_is_no_number_is_refused_with_its_name(tmp_path, value):
    with pytest.raises((MisconfigurationTypeError, MisconfigurationValueError), match="'val/acc'"):
        TensorBoardLogger(tmp_path).log_metrics({"val/acc": value}, step=0)


def test_the_arguments_of_the_summary_writer_are_taken_and_others_refused(tmp_path):
    logger = TensorBoardLogger(tmp_path, flush_secs=5, max_queue=10, filename_suffix=".mine", comment="x", purge_step=3)
    logger.log_metrics({"a": 1.0}, step=3)
    logger.finalize("success")
    (path,) = Path(logger.log_dir).iterdir()
    assert path.name.endswith(".mine")
    with pytest.raises(MisconfigurationValueError, match="'flush_sec'"):
        TensorBoardLogger(tmp_path, flush_sec=5)


def test_the_client_writes_into_the_same_file(tmp_path, events, scalars):
    from torch.utils.tensorboard import SummaryWriter

    logger = TensorBoardLogger(tmp_path)
    client = logger.experiment
    assert isinstance(client, SummaryWriter)
    assert client is logger.experiment
    assert not Path(logger.log_dir).exists()
    logger.log_metrics({"a": 1.0}, step=0)
    client.add_image("picture", torch.rand(3, 4, 4), 1)
    client.add_histogram("weights", torch.rand(10), 1)
    client.add_text("note", "hello", 1)
    client.add_scalar("by_hand", 2.0, 1)
    logger.log_metrics({"a": 3.0}, step=2)
    client.close()
    client.add_scalar("by_hand", 4.0, 3)
    client.flush()
    assert len(list(Path(logger.log_dir).iterdir())) == 1
    assert [e.summary.value[0].tag.split("/")[0] for e in events(logger.log_dir) if e.HasField("summary")] == [
        *["a", "picture", "weights", "note", "by_hand", "a", "by_hand"],
    ]
    assert scalars(logger.log_dir)["by_hand"] == [(1, 2.0), (3, 4.0)]


def test_hyperparameters_reach_the_file_and_the_table(tmp_path, events):
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE

    logger = TensorBoardLogger(tmp_path)
    config = {"model": {"width": 8, "bias": True}, "act": torch.relu, "nan": float("nan"), "none": None}
    config["self"] = config
    logger.log_hyperparams(config)
    logger.finalize("failed")
    assert yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())["self"] == "<cycle>"
    summaries = {v.tag: v.metadata.plugin_data.content for e in events(logger.log_dir) for v in e.summary.value}
    start = metadata.parse_session_start_info_plugin_data(summaries["_hparams_/session_start_info"]).hparams
    assert start["model/width"].number_value == 8
    assert start["model/bias"].WhichOneof("kind") == "bool_value"
    assert start["act"].string_value == "torch.relu"
    assert start["nan"].string_value == "nan"
    assert start["none"].string_value == "None"
    experiment = metadata.parse_experiment_plugin_data(summaries["_hparams_/experiment"])
    assert [info.name.tag for info in experiment.metric_infos] == ["hp_metric"]
    end = metadata.parse_session_end_info_plugin_data(summaries["_hparams_/session_end_info"])
    assert end.status == STATUS_FAILURE


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, {}),
        (0.5, {"hp_metric": [(0, 0.5)]}),
        ({"accuracy": 0.75, "loss": torch.tensor(2.0)}, {"accuracy": [(0, 0.75)], "loss": [(0, 2.0)]}),
    ],
)
def test_metrics_beside_the_hyperparameters(tmp_path, scalars, metrics, expected):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1}, metrics)
    logger.finalize("success")
    assert scalars(logger.log_dir) == expected


def test_the_graph_is_written_and_the_model_left_as_it_was(tmp_path, events):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.frozen = nn.Linear(2, 3), nn.Dropout()
            self.frozen.eval()
            self.example_input_array = torch.rand(1, 2)

        def forward(self, x):
            return self.frozen(self.layer(x))

    model = Model()
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    logger.log_graph(model)
    logger.finalize("success")
    assert any(event.HasField("graph_def") for event in events(logger.log_dir))
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)


def test_no_graph_without_the_flag_or_an_input(tmp_path):
    quiet = TensorBoardLogger(tmp_path)
    quiet.log_graph(nn.Linear(1, 1), torch.rand(1, 1))
    assert not Path(quiet.log_dir).exists()
    with pytest.warns(UserWarning, match="LY-L007.*example_input_array"):
        TensorBoardLogger(tmp_path, log_graph=True).log_graph(nn.Linear(1, 1))


def test_a_copy_carries_configuration_and_version_only(tmp_path, scalars):
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_scalar("a", 1.0, 0)
    logger.save()
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.log_dir == logger.log_dir
    copy.log_metrics({"a": 2.0}, step=1)
    copy.save()
    assert scalars(logger.log_dir)["a"] == [(0, 1.0), (1, 2.0)]


def test_two_loggers_get_two_versions_and_a_csv_logger_may_share_one(tmp_path, scalars):
    first, second, table = TensorBoardLogger(tmp_path), TensorBoardLogger(tmp_path), CSVLogger(tmp_path)
    assert [first.version, second.version, table.version] == [0, 1, 0]
    for logger in (first, table):
        logger.log_hyperparams({"lr": 0.1})
        logger.log_metrics({"a": 1.0}, step=0)
        logger.finalize("success")
    names = sorted(path.name.partition(".")[0] for path in Path(first.log_dir).iterdir())
    assert names == ["events", "hparams", "metrics"]
    assert scalars(first.log_dir) == {"a": [(0, 1.0)]}


def test_a_forked_worker_writes_nothing(run_code, tmp_path, scalars):
    run_code(
        """
        import os, sys
        from leyden.loggers import TensorBoardLogger
        logger = TensorBoardLogger(sys.argv[1], version=0)
        logger.experiment.add_scalar("a", 1.0, 0)
        child = os.fork()
        if child == 0:
            logger.experiment.add_scalar("a", 2.0, 1)
            logger.log_metrics({"a": 2.0}, 1)
            logger.save()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        logger.log_metrics({"a": 3.0}, 2)
        """,
        tmp_path,
    )
    assert scalars(tmp_path / "lightning_logs" / "version_0") == {"a": [(0, 1.0), (2, 3.0)]}


def test_other_ranks_write_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    assert isinstance(logger.experiment, DummyExperiment)
    logger.experiment.add_image("x", "not an image")[0].anything()
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_hyperparams({"lr": 0.1}, {"a": 1.0})
    logger.log_graph(nn.Linear(1, 1), torch.rand(1, 1))
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(LoggerError, match=r"TensorBoardLogger can not write to .*logs"):
        TensorBoardLogger(tmp_path / "logs").log_metrics({"a": 1.0}, step=0)


def test_a_new_run_gets_a_new_version(tmp_path, scalars):
    logger = TensorBoardLogger(tmp_path)
    logger.experiment.add_scalar("a", 1.0, 5)
    logger.new_run()
    logger.log_metrics({"a": 2.0}, step=0)
    logger.experiment.add_scalar("b", 2.0, 0)
    logger.finalize("success")
    assert logger.version == 1
    assert scalars(logger.log_dir) == {"a": [(0, 2.0)], "b": [(0, 2.0)]}


def test_it_is_the_default_and_has_a_short_name(tmp_path):
    assert find_logger("tensorboard") is TensorBoardLogger
    assert type(default_logger(tmp_path, name="x", version=1)) is TensorBoardLogger
    assert CSVLogger is CoreCSVLogger


def test_a_missing_client_names_the_extra(run_code):
    answer = run_code(
        """
        import sys
        sys.modules["tensorboard"] = None
        from leyden.core.errors import MissingExtraError
        from leyden.loggers import TensorBoardLogger
        try:
            TensorBoardLogger(".")
        except MissingExtraError as error:
            print(error)
        """
    )
    assert "pip install 'leyden-loggers[tensorboard]'" in answer
    assert issubclass(MissingExtraError, ModuleNotFoundError)


def test_importing_the_package_imports_no_client(run_code):
    answer = run_code(
        """
        import sys
        import leyden.loggers
        assert "torch" not in sys.modules
        leyden.loggers.TensorBoardLogger(".").log_dir
        heavy = {"tensorboard", "tensorflow", "google", "matplotlib"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
        """
    )
    assert answer == "[]"


def test_a_row_does_not_wait_for_the_device(tmp_path, scalars):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logger = TensorBoardLogger(tmp_path)
    values = torch.arange(2.0, device=device)
    logger.log_rows(["a", "b"], values, 0)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        logger.log_rows(["a", "b"], values + 4, 1)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    logger.save()
    assert scalars(logger.log_dir) == {"a": [(0, 0.0), (1, 4.0)], "b": [(0, 1.0), (1, 5.0)]}
