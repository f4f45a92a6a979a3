import pytest

from leyden.core.loggers import CSVLogger, DummyExperiment, process_rank

VARIABLES = ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"]


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_rank_is_read_from_the_environment(monkeypatch, variable):
    for other in VARIABLES:
        monkeypatch.delenv(other, raising=False)
    assert process_rank() == 0
    monkeypatch.setenv(variable, "3")
    assert process_rank() == 3
    monkeypatch.setenv(variable, "not a number")
    assert process_rank() == 0


def test_the_global_rank_wins_over_the_local_one(monkeypatch):
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert process_rank() == 4


def test_other_ranks_write_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    logger = CSVLogger(tmp_path)
    logger.adopt_version(5)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_hyperparams({"lr": 0.1})
    logger.load_state_dict({"version": 7, "last_step": 3, "rows": 4, "last": {"step": "3"}, "log_dir": "x"})
    assert logger.version == 7
    logger.log_metrics({"a": 2.0}, step=4)
    logger.save()
    logger.finalize("success")
    assert isinstance(logger.experiment, DummyExperiment)
    assert list(tmp_path.iterdir()) == []
    assert logger.state_dict() == {}
