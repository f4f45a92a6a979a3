import copy
import pickle

import pytest
import torch

from leyden.core.loggers import DummyExperiment, DummyLogger, Logger


class Kept(Logger):
    """The least that a logger needs."""

    name, version = "kept", 0

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, metrics=None):
        self.params = params


def test_a_logger_is_four_definitions():
    logger = Kept()
    logger.log_rows(["a", "b"], torch.tensor([1.0, 2.0]), 3)
    logger.log_graph(torch.nn.Linear(1, 1))
    logger.save()
    logger.finalize("failed")
    logger.after_save_checkpoint(None)
    logger.new_run()
    logger.adopt_version(3)
    logger.load_state_dict(logger.state_dict())
    assert logger.rows == [(3, {"a": 1.0, "b": 2.0})]
    assert (logger.save_dir, logger.root_dir, logger.log_dir, logger.experiment) == (None, None, None, None)
    assert logger.group_separator == "/"


def test_a_logger_without_them_can_not_be_made():
    with pytest.raises(TypeError, match="log_metrics"):

        class Half(Logger):
            name, version = "half", 0

            def log_hyperparams(self, params, metrics=None):
                pass

        Half()


def test_the_root_folder_joins_save_dir_and_name():
    class InFolder(Kept):
        save_dir = "logs"

    assert InFolder().root_dir == "logs/kept"


def test_a_dummy_swallows_everything():
    logger = DummyLogger()
    logger.log_metrics({"a": "not a number"}, step="nor a step")
    logger.log_rows(["a"], torch.ones(5), 0)
    logger.log_hyperparams(object())
    logger.log_image("key", [1])
    logger[3].experiment.add_figure("x", 1).anything[2] = 3
    with logger.experiment.span("name") as span:
        assert span
    assert list(logger.experiment) == []
    assert list(logger) == []
    assert logger.state_dict() == {}
    assert (logger.name, logger.version, logger.save_dir, logger.log_dir) == ("", "", None, None)


@pytest.mark.parametrize("kind", [DummyLogger, DummyExperiment])
def test_a_dummy_can_be_copied(kind):
    assert type(copy.deepcopy(kind())) is kind
    assert type(pickle.loads(pickle.dumps(kind()))) is kind
