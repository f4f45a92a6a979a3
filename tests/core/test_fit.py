"""Training does what the loop does that one would have written by hand, bit by bit."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.utilities import CombinedLoader


def points(n=24):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(n, 6, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True).sin())


def loader(n=24, batch_size=4):
    return DataLoader(points(n), batch_size=batch_size)


def net():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))


class Regression(L.LightningModule):
    def __init__(self, make_optimizer, make_scheduler=None):
        super().__init__()
        self.net = net()
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}


def trainer(tmp_path, **flags):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(default_root_dir=tmp_path, **{**quiet, "max_epochs": 3, **flags})


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def by_hand(make_optimizer, *, epochs=3, window=1, clip=None, n=24, batch_size=4, scheduler=None, per_step=False):
    model = net()
    model.train()
    optimizer = make_optimizer(model.parameters())
    schedule = scheduler(optimizer) if scheduler else None
    torch.manual_seed(11)
    for _ in range(epochs):
        batches = list(DataLoader(points(n), batch_size=batch_size))
        for first in range(0, len(batches), window):
            part = batches[first : first + window]
            for i, (x, y) in enumerate(part):
                loss = F.mse_loss(model(x), y)
                if i == 0:
                    optimizer.zero_grad()
                (loss / len(part)).backward()
            if clip:
                clip(model.parameters())
            optimizer.step()
            if schedule and per_step:
                schedule.step()
        if schedule and not per_step:
            schedule.step()
    return model


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


@pytest.mark.parametrize("make", [sgd, adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_weights_equal_the_hand_written_loop(tmp_path, make, window):
    model = Regression(make)
    t = trainer(tmp_path, accumulate_grad_batches=window)
    torch.manual_seed(11)
    t.fit(model, loader())
    assert same(model.net, by_hand(make, window=window))
    assert t.global_step == 3 * -(-6 // window)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping(tmp_path, algorithm):
    function = torch.nn.utils.clip_grad_norm_ if algorithm == "norm" else torch.nn.utils.clip_grad_value_
    model = Regression(sgd)
    torch.manual_seed(11)
    trainer(tmp_path, gradient_clip_val=0.05, gradient_clip_algorithm=algorithm).fit(model, loader())
    assert same(model.net, by_hand(sgd, clip=lambda p: function(p, 0.05)))


@pytest.mark.parametrize("per_step", [False, True])
def test_schedulers(tmp_path, per_step):
    def schedule(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    config = {"interval": "step" if per_step else "epoch"}
    model = Regression(sgd, lambda o: {"scheduler": schedule(o), **config})
    torch.manual_seed(11)
    trainer(tmp_path).fit(model, loader())
    assert same(model.net, by_hand(sgd, scheduler=schedule, per_step=per_step))


def test_an_optimizer_that_needs_a_closure(tmp_path):
    model = Regression(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4))
    hand = net()
    optimizer = torch.optim.LBFGS(hand.parameters(), lr=0.1, max_iter=4)
    hand.train()
    torch.manual_seed(11)
    for _ in range(2):
        for x, y in loader():

            def closure(x=x, y=y):
                loss = F.mse_loss(hand(x), y)
                optimizer.zero_grad()
                loss.backward()
                return loss

            optimizer.step(closure)
    torch.manual_seed(11)
    t = trainer(tmp_path, max_epochs=2)
    t.fit(model, loader())
    assert same(model.net, hand)
    assert t.global_step == 12


class Gan(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(5)
        self.generator, self.critic = torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        first, second = self.optimizers()
        self.toggle_optimizer(first)
        loss = -self.critic(self.generator(x[:, :2])).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.untoggle_optimizer(first)
        with self.toggled_optimizer(second):
            loss = self.critic(self.generator(x[:, :2])).mean() - self.critic(x).mean()
            second.zero_grad()
            self.manual_backward(loss)
            second.step()

    def configure_optimizers(self):
        return [adam(self.generator.parameters()), sgd(self.critic.parameters())]


def test_manual_optimization_of_a_gan(tmp_path):
    model = Gan()
    hand = copy.deepcopy(model)
    first, second = hand.configure_optimizers()
    for _ in range(2):
        for x, _ in loader():
            loss = -hand.critic(hand.generator(x[:, :2])).mean()
            first.zero_grad()
            loss.backward()
            first.step()
            loss = hand.critic(hand.generator(x[:, :2])).mean() - hand.critic(x).mean()
            second.zero_grad()
            loss.backward()
            second.step()
    t = trainer(tmp_path, max_epochs=2)
    t.fit(model, loader())
    assert same(model, hand)
    assert t.global_step == 24
    assert all(p.requires_grad for p in model.parameters())


def test_a_step_that_returns_none_is_skipped(tmp_path):
    class Skipping(Regression):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    model = Skipping(sgd)
    t = trainer(tmp_path, max_epochs=1)
    t.fit(model, loader())
    assert t.global_step == 3


def test_a_batch_hook_that_returns_minus_one_ends_the_epoch(tmp_path):
    class Short(Regression):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    t = trainer(tmp_path, max_epochs=2)
    t.fit(Short(sgd), loader())
    assert (t.global_step, t.current_epoch) == (4, 2)


def test_outputs_hold_the_unscaled_loss_and_what_else_the_step_returned(tmp_path):
    seen = []

    class Dicts(Regression):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "index": batch_idx}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(outputs)

    model = Dicts(sgd)
    model.net[2].p = 0.0
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=3, limit_train_batches=1).fit(model, loader())
    x, y = next(iter(loader()))
    assert torch.equal(seen[0]["loss"], F.mse_loss(Regression_at_start()(x), y))
    assert seen[0]["index"] == 0
    assert not seen[0]["loss"].requires_grad


def Regression_at_start():
    model = net()
    model[2].p = 0.0
    return model


def test_batch_idx_may_be_left_out(tmp_path):
    class Short(Regression):
        def training_step(self, batch):
            x, y = batch
            return F.mse_loss(self.net(x), y)

    model = Short(sgd)
    torch.manual_seed(11)
    trainer(tmp_path).fit(model, loader())
    assert same(model.net, by_hand(sgd))


@pytest.mark.parametrize("flags", [{"max_steps": 7, "max_epochs": -1}, {"max_steps": 7, "max_epochs": 10}])
def test_max_steps(tmp_path, flags):
    t = trainer(tmp_path, **flags)
    t.fit(Regression(sgd), loader())
    assert t.global_step == 7


def test_generators_and_lists_of_batches_are_data(tmp_path):
    batches = list(loader())

    class Endless:
        def __iter__(self):
            return iter(batches)

    trained = []
    for data in (loader(), batches, Endless(), tuple(batches)):
        model = Regression(sgd)
        model.net[2].p = 0.0  # a DataLoader draws a seed of its own, so dropout would see other numbers
        trainer(tmp_path).fit(model, data)
        trained.append(model)
    assert all(same(trained[0], other) for other in trained[1:])


def test_the_last_window_of_data_without_a_length_is_stepped(tmp_path):
    class Unsized:
        def __iter__(self):
            return iter(loader())

    t = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=4)
    t.fit(Regression(sgd), Unsized())
    assert t.global_step == 2


def test_the_number_of_steps_is_known_when_the_optimizers_are_made(tmp_path):
    steps = []

    class Scheduled(Regression):
        def configure_optimizers(self):
            steps.append(self.trainer.estimated_stepping_batches)
            return super().configure_optimizers()

    trainer(tmp_path, accumulate_grad_batches=4).fit(Scheduled(sgd), loader())
    trainer(tmp_path, max_steps=5).fit(Scheduled(sgd), loader())
    assert steps == [6, 5]


def test_a_second_fit_with_another_model_is_a_fresh_run_and_with_the_same_one_goes_on(tmp_path):
    t = trainer(tmp_path, max_epochs=2)
    first, second = Regression(sgd), Regression(sgd)
    torch.manual_seed(11)
    t.fit(first, loader())
    torch.manual_seed(11)
    t.fit(second, loader())
    assert (t.current_epoch, t.global_step) == (2, 12)
    assert same(first, second)
    t.fit(second, loader())
    assert t.global_step == 12


def test_an_evaluation_in_between_does_not_make_another_model_the_trained_one(tmp_path):
    class Validated(Regression):
        def validation_step(self, batch, batch_idx):
            pass

    first, second = Validated(sgd), Validated(sgd)
    t = trainer(tmp_path, max_epochs=2, limit_val_batches=1)
    t.fit(first, loader(), loader())
    t.validate(second, loader(), verbose=False)
    t.fit(second, loader(), loader())
    assert t.global_step == 12
    assert not same(second.net, net())


def test_several_training_loaders_give_batches_in_their_shape(tmp_path):
    seen = []

    class Several(Regression):
        def training_step(self, batch, batch_idx):
            seen.append((len(batch["labelled"][0]), len(batch["plain"][0])))
            x, y = batch["labelled"]
            return F.mse_loss(self.net(x), y)

    t = trainer(tmp_path, max_epochs=1)
    t.fit(Several(sgd), {"labelled": loader(), "plain": loader(6, 4)})
    assert seen == [(4, 4), (4, 2)] * 3
    assert t.num_training_batches == 6
    sequential = CombinedLoader([loader(), loader()], "sequential")
    with pytest.raises(ValueError, match="does not support"):
        trainer(tmp_path).fit(Regression(sgd), sequential)


def test_nothing_of_a_run_travels_with_a_copy_of_the_model(tmp_path):
    copies = []

    class Copying(Regression):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            copies.append(copy.deepcopy(self))

    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(Copying(adam), loader())
    with pytest.raises(RuntimeError, match="not attached to a `Trainer`"):
        _ = copies[0].trainer


def test_the_loader_is_given_back_as_it_was(tmp_path):
    data = loader()
    sampler = data.batch_sampler
    trainer(tmp_path).fit(Regression(sgd), data)
    assert data.batch_sampler is sampler
