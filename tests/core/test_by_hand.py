"""The trainer computes, bit for bit, what a loop written by hand computes."""

import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L

EPOCHS = 3


def batches():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(7))
    return DataLoader(TensorDataset(x), batch_size=4)


class Regression(L.LightningModule):
    """A small network whose optimiser and schedulers a test chooses."""

    def __init__(self, configure):
        super().__init__()
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.configure = configure

    def loss(self, x):
        return F.mse_loss(self.net(x), x.sum(1, keepdim=True))

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch[0])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return self.configure(self.parameters())


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


def trained(model, tmp_path, **flags):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(default_root_dir=tmp_path, max_epochs=EPOCHS, logger=False, **quiet, **flags)
    trainer.fit(model, batches())
    return trainer


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def windows(size):
    every = list(batches())
    return [every[i : i + size] for i in range(0, len(every), size)]


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("clip", [None, ("norm", 0.3), ("value", 0.01)])
def test_optimizers_accumulation_and_clipping(tmp_path, make, window, clip):
    hand = Regression(make)
    optimizer = make(hand.parameters())
    for _ in range(EPOCHS):
        for group in windows(window):
            optimizer.zero_grad()
            for (x,) in group:
                loss = hand.loss(x)
                (loss if len(group) == 1 else loss / len(group)).backward()
            if clip is not None and clip[0] == "norm":
                torch.nn.utils.clip_grad_norm_(hand.parameters(), clip[1])
            elif clip is not None:
                torch.nn.utils.clip_grad_value_(hand.parameters(), clip[1])
            optimizer.step()
    flags = {} if clip is None else {"gradient_clip_algorithm": clip[0], "gradient_clip_val": clip[1]}
    model = Regression(make)
    trained(model, tmp_path, accumulate_grad_batches=window, **flags)
    assert same(model, hand)


def test_an_optimizer_that_runs_the_model_itself(tmp_path):
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=4)

    hand = Regression(lbfgs)
    optimizer = lbfgs(hand.parameters())
    for _ in range(EPOCHS):
        for (x,) in batches():

            def closure(x=x):
                optimizer.zero_grad()
                loss = hand.loss(x)
                loss.backward()
                return loss

            optimizer.step(closure)
    model = Regression(lbfgs)
    trained(model, tmp_path)
    assert same(model, hand)


def test_a_schedule_by_steps(tmp_path):
    def configure(parameters):
        optimizer = sgd(parameters)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": CosineAnnealingLR(optimizer, 15), "interval": "step"},
        }

    hand = Regression(configure)
    optimizer = sgd(hand.parameters())
    scheduler = CosineAnnealingLR(optimizer, 15)
    for _ in range(EPOCHS):
        for (x,) in batches():
            optimizer.zero_grad()
            hand.loss(x).backward()
            optimizer.step()
            scheduler.step()
    model = Regression(configure)
    trained(model, tmp_path)
    assert same(model, hand)


def test_a_schedule_by_epochs(tmp_path):
    def configure(parameters):
        optimizer = sgd(parameters)
        return [optimizer], [StepLR(optimizer, 1, gamma=0.3)]

    hand = Regression(configure)
    optimizer = sgd(hand.parameters())
    scheduler = StepLR(optimizer, 1, gamma=0.3)
    for _ in range(EPOCHS):
        for (x,) in batches():
            optimizer.zero_grad()
            hand.loss(x).backward()
            optimizer.step()
        scheduler.step()
    model = Regression(configure)
    trained(model, tmp_path)
    assert same(model, hand)


def test_a_plateau(tmp_path):
    def plateau(optimizer):
        return ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=10.0, threshold_mode="abs")

    def configure(parameters):
        optimizer = sgd(parameters)
        return {"optimizer": optimizer, "lr_scheduler": plateau(optimizer), "monitor": "loss"}

    hand = Regression(configure)
    optimizer = sgd(hand.parameters())
    scheduler = plateau(optimizer)
    for _ in range(EPOCHS):
        losses = []
        for (x,) in batches():
            optimizer.zero_grad()
            loss = hand.loss(x)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        scheduler.step(torch.stack(losses).mean())
    model = Regression(configure)
    trainer = trained(model, tmp_path)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0005)
    assert same(model, hand)


# -- two networks against each other -----------------------------------------------------------------------------------


class Gan(L.LightningModule):
    """A generator and a critic, with an optimiser each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.generator, self.critic = torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)

    def losses(self, x):
        fake = self.critic(self.generator(x[:, :2])).mean()
        return -fake, fake - self.critic(x).mean()

    def pair(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.5, 0.9)),
            torch.optim.SGD(self.critic.parameters(), lr=0.1, momentum=0.9),
        ]

    def configure_optimizers(self):
        return self.pair()


class ManualGan(Gan):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for i, optimizer in enumerate(self.optimizers()):
            with self.toggled_optimizer(optimizer):
                optimizer.zero_grad()
                self.manual_backward(self.losses(batch[0])[i])
                self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
                optimizer.step()


def gan_by_hand(turn, clip=None):
    hand = Gan()
    optimizers = hand.pair()
    for _ in range(EPOCHS):
        for batch_idx, (x,) in enumerate(batches()):
            for i in turn(batch_idx):
                hand.zero_grad()
                hand.losses(x)[i].backward()
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(optimizers[i].param_groups[0]["params"], clip)
                optimizers[i].step()
    return hand


def test_a_gan_in_manual_optimization(tmp_path):
    model = ManualGan()
    trainer = trained(model, tmp_path)
    assert same(model, gan_by_hand(lambda batch_idx: (0, 1), clip=0.5))
    assert trainer.global_step == 2 * 5 * EPOCHS


@pytest.mark.parametrize("frequencies", [None, (1, 2), (2, 1)])
def test_a_gan_in_automatic_optimization(tmp_path, frequencies):
    class Automatic(Gan):
        def training_step(self, batch, batch_idx, optimizer_idx):
            return self.losses(batch[0])[optimizer_idx]

        def configure_optimizers(self):
            if frequencies is None:
                return self.pair()
            return [{"optimizer": o, "frequency": n} for o, n in zip(self.pair(), frequencies, strict=True)]

    turns = [i for i, n in enumerate(frequencies or ()) for _ in range(n)]
    model = Automatic()
    trained(model, tmp_path)
    assert same(model, gan_by_hand(lambda batch_idx: (turns[batch_idx % 3],) if turns else (0, 1)))
