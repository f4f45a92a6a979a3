"""LearningRateMonitor: which rows come when, under which names."""

import pytest
import torch

import leyden.core as L
from leyden.core.callbacks import BaseFinetuning, LearningRateMonitor
from leyden.core.errors import MisconfigurationException


class Rows(L.loggers.Logger):
    name, version = "rows", 0

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        row = {k: v for k, v in metrics.items() if k.startswith(("lr-", "rate"))}
        self.rows += [(step, row)] if row else []

    def log_hyperparams(self, params, metrics=None):
        pass


@pytest.fixture
def rows(quiet, tiny, numbers):
    """Train with a monitor; returns the rows and the monitor."""

    def run(configure, *args, callbacks=(), flags=None, **options):
        class Model(tiny):
            def __init__(self):
                super().__init__()
                self.other = torch.nn.Parameter(torch.ones(1))

            def configure_optimizers(self):
                return configure(self)

        monitor, logger = LearningRateMonitor(*args, **options), Rows()
        flags = {"max_epochs": 2, "log_every_n_steps": 2, **(flags or {})}
        quiet(callbacks=[*callbacks, monitor], logger=logger, **flags).fit(Model(), numbers(8))
        return logger.rows, monitor

    return run


def halved(interval, **config):
    def configure(model):
        optimizer = torch.optim.SGD([model.weight], lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval, **config}}

    return configure


def test_rows_come_at_the_scheduler_s_interval(rows):
    assert rows(halved("epoch"))[0] == [(0, {"lr-SGD": 1.0}), (4, {"lr-SGD": 0.5})]
    found, monitor = rows(halved("step"))
    assert found == [(1, {"lr-SGD": 2**-1}), (3, {"lr-SGD": 2**-3}), (5, {"lr-SGD": 2**-5}), (7, {"lr-SGD": 2**-7})]
    assert monitor.lrs == {"lr-SGD": [2**-1, 2**-3, 2**-5, 2**-7]}


def test_the_interval_can_be_given(rows):
    assert [step for step, _ in rows(halved("step"), "epoch")[0]] == [0, 4]
    assert [step for step, _ in rows(halved("epoch"), "step")[0]] == [1, 3, 5, 7]


def test_an_optimizer_without_scheduler_is_logged_at_both(rows):
    found, _ = rows(lambda model: torch.optim.Adam([model.weight], lr=0.25))
    assert [step for step, _ in found] == [0, 1, 3, 4, 5, 7]
    assert {row["lr-Adam"] for _, row in found} == {0.25}


def test_names_of_groups_and_schedulers(rows):
    def groups(model):
        return torch.optim.SGD([{"params": [model.weight], "lr": 1.0}, {"params": [model.other], "name": "o"}], lr=0.5)

    assert rows(groups, "epoch")[0][0] == (0, {"lr-SGD/pg1": 1.0, "lr-SGD/o": 0.5})
    assert rows(halved("epoch", name="rate"))[0][0] == (0, {"rate": 1.0})


def test_optimizers_of_one_kind_are_counted(quiet, tiny, numbers):
    class Two(tiny):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return [torch.optim.Adam([self.weight], lr=lr) for lr in (0.5, 0.25)]

    logger = Rows()
    quiet(callbacks=LearningRateMonitor("epoch"), logger=logger).fit(Two(), numbers())
    assert logger.rows == [(0, {"lr-Adam": 0.5, "lr-Adam-1": 0.25})]


def test_momentum_and_weight_decay(rows):
    def adam(model):
        return torch.optim.AdamW([model.weight], lr=0.5, betas=(0.75, 0.9), weight_decay=0.125)

    found, monitor = rows(adam, "epoch", True, True)
    assert found[0][1] == {"lr-AdamW": 0.5, "lr-AdamW-momentum": 0.75, "lr-AdamW-weight_decay": 0.125}
    assert monitor.last_momentum_values == {"lr-AdamW-momentum": 0.75}
    assert monitor.last_weight_decay_values == {"lr-AdamW-weight_decay": 0.125}
    with pytest.warns(RuntimeWarning, match="optimizers do not have momentum"):
        found, _ = rows(lambda model: torch.optim.Adagrad([model.weight]), "epoch", log_momentum=True)
    assert found[0][1]["lr-Adagrad-momentum"] == 0


def test_groups_that_join_later_are_logged(rows):
    class Join(BaseFinetuning):
        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                optimizer.add_param_group({"params": [pl_module.other], "lr": 0.125})

    def sgd(model):
        return torch.optim.SGD([model.weight], lr=1.0)

    found, monitor = rows(sgd, "epoch", callbacks=[Join()])
    assert found == [(0, {"lr-SGD": 1.0}), (4, {"lr-SGD/pg1": 1.0, "lr-SGD/pg2": 0.125})]
    assert monitor.lrs == {"lr-SGD/pg1": [1.0, 1.0], "lr-SGD/pg2": [0.125]}


def test_wrong_use_is_refused(quiet, tiny, numbers, rows):
    with pytest.raises(MisconfigurationException, match="logging_interval should be"):
        LearningRateMonitor("batch")
    with pytest.raises(MisconfigurationException, match="has no logger"):
        quiet(callbacks=LearningRateMonitor()).fit(tiny(), numbers())

    def twins(model):
        return torch.optim.SGD([{"params": [p], "name": "same"} for p in (model.weight, model.other)], lr=1)

    with pytest.raises(MisconfigurationException, match="identical `name` values"):
        rows(twins)


def test_it_observes_only():
    assert LearningRateMonitor().observer


def test_what_was_logged_last_can_be_monitored(quiet, tiny, numbers):
    class Decaying(tiny):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    trainer = quiet(callbacks=LearningRateMonitor(), logger=Rows(), max_epochs=3)
    trainer.fit(Decaying(), numbers())
    assert trainer.callback_metrics["lr-SGD"].item() == 0.25
