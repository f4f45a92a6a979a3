"""`uneven="join"`: processes train on all of their batches, and one that is out of them rests until all are."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException

LENGTHS = (5, 3)


def features(samples=20):
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(0))
    return x, x.sum(1, keepdim=True)


class Stream(IterableDataset):
    """The first process has five batches of two samples, the second three others."""

    def __iter__(self):
        rank = torch.distributed.get_rank()
        begin = 2 * sum(LENGTHS[:rank])
        x, y = features()
        return ((x[i], y[i]) for i in range(begin, begin + 2 * LENGTHS[rank]))


class Regression(L.LightningModule):
    def __init__(self, weighted=False):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.weighted = weighted

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return {"loss": loss, "weight": len(batch[0])} if self.weighted else loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Validated(Regression):
    def validation_step(self, batch, batch_idx):
        self.log("val", F.mse_loss(self.net(batch[0]), batch[1]))


class Hooks(L.Callback):
    def __init__(self):
        self.ended, self.rested = 0, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ended += 1
        self.rested += outputs == {}


@pytest.fixture
def join(quiet):
    """Train in two processes of which one may rest."""

    def run(module, loader, val=None, **flags):
        trainer = quiet(accelerator="cpu", devices=2, uneven="join", num_sanity_val_steps=0, **flags)
        trainer.fit(module, loader, val)
        return trainer

    return run


def by_hand(rounds):
    """Train on rounds of samples, each the mean over all that take part."""
    module = Regression()
    optimizer = module.configure_optimizers()
    losses = []
    x, y = features()
    for batches in rounds:
        optimizer.zero_grad()
        each = [F.mse_loss(module.net(x[batch]), y[batch]) for batch in batches]
        torch.stack(each).mean().backward()
        optimizer.step()
        losses += [loss.item() for loss in each]
    return module.net.state_dict(), losses


def assert_same(state, expected):
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_one_thread")
def test_streams_of_different_lengths_are_trained_to_their_ends(join):
    first = [slice(2 * i, 2 * i + 2) for i in range(5)]
    second = [slice(10 + 2 * i, 12 + 2 * i) for i in range(3)]
    expected, losses = by_hand([[a, b] for a, b in zip(first, second, strict=False)] + [[a] for a in first[3:]])
    module, hooks = Validated(), Hooks()
    # validation within the epoch and rows of logged values are collectives of the engine
    val = DataLoader(TensorDataset(*features(6)), 2)
    trainer = join(module, DataLoader(Stream(), 2), val, callbacks=[hooks], val_check_interval=2, log_every_n_steps=1)
    assert trainer.global_step == 5
    assert_same(module.net.state_dict(), expected)
    assert float(trainer.callback_metrics["loss_epoch"]) == pytest.approx(sum(losses) / 8, rel=1e-5)
    # the last step is the first process's alone
    assert float(trainer.callback_metrics["loss_step"]) == pytest.approx(losses[-1], rel=1e-5)
    assert (hooks.ended, hooks.rested) == (5, 0)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_samples_that_do_not_go_round_are_trained_on_as_in_one_process(join, quiet, accumulate):
    data = TensorDataset(*features(17))
    alone, both = Regression(weighted=accumulate > 1), Regression(weighted=accumulate > 1)
    quiet(accelerator="cpu", devices=1, max_epochs=2, accumulate_grad_batches=accumulate).fit(
        alone, DataLoader(data, 8)
    )
    trainer = join(both, DataLoader(data, 4), max_epochs=2, accumulate_grad_batches=accumulate)
    assert trainer.global_step == 6 / accumulate + (accumulate > 1)
    assert_same(both.net.state_dict(), alone.net.state_dict())


class Manual(Regression):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        (Manual, {}, "manual optimization"),
        (Regression, {"sync_batchnorm": True}, "sync_batchnorm"),
        (Regression, {"strategy": "fsdp"}, "FSDPStrategy"),
    ],
)
def test_what_a_resting_process_can_not_take_part_in_is_refused(join, module, flags, words):
    with pytest.raises(MisconfigurationException, match=words):
        join(module(), DataLoader(TensorDataset(*features()), 2), **flags)
