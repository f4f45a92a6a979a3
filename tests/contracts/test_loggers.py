"""The loggers are what core's `LoggerLike` asks for, in names and in calls."""

import inspect

import pytest
import torch

from leyden.core.interfaces import LoggerLike
from leyden.core.loggers import CSVLogger, DummyLogger
from leyden.loggers import TensorBoardLogger

MAKERS = {
    "csv": CSVLogger,
    "tensorboard": TensorBoardLogger,
    "dummy": lambda folder: DummyLogger(),
}
METHODS = ["log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_logger_is_logger_like(make, tmp_path):
    logger = make(tmp_path)
    assert isinstance(logger, LoggerLike)
    for method in METHODS:
        asked = list(inspect.signature(getattr(LoggerLike, method)).parameters)[1:]
        given = list(inspect.signature(getattr(logger, method)).parameters)
        named = [name for name in asked if name not in ("args", "kwargs")]
        assert given[: len(named)] == named


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_logger_takes_the_calls_of_a_run(make, tmp_path):
    logger = make(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_graph(torch.nn.Linear(1, 1))
    logger.log_metrics({"loss": 1.0, "epoch": 0}, step=0)
    logger.log_rows(["loss", "epoch"], torch.tensor([0.5, 0.0]), 1)
    logger.after_save_checkpoint(object())
    state = logger.state_dict()
    logger.save()
    logger.finalize("success")
    resumed = make(tmp_path)
    resumed.load_state_dict(state)
    resumed.log_rows(["loss", "epoch"], torch.tensor([0.25, 0.0]), 2)
    resumed.finalize("interrupted")
    assert (resumed.name, resumed.version, resumed.log_dir) == (logger.name, logger.version, logger.log_dir)
