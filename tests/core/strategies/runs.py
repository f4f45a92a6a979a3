"""Runs that several processes do together, and one process alone: their results are compared.

As a script it does all of them as one of several processes, and the first process writes what came of them.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L

GLOBAL_BATCH = 8


class Plain(L.LightningModule):
    def __init__(self, middle=None):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 16), middle or torch.nn.Identity(), torch.nn.Tanh(), torch.nn.Linear(16, 1)
        )

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.mse_loss(self.net(batch[0]), batch[1]))

    test_step = predict_step = None

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Plateau(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class Normalised(Plain):
    def __init__(self):
        super().__init__(torch.nn.BatchNorm1d(16))

    def configure_optimizers(self):
        # a bias in front of the normalisation has no gradient but rounding, which Adam would make a step of
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Weighted(Plain):
    def training_step(self, batch, batch_idx):
        kept = (batch[1][:, 0] > 0).float()
        weight = kept.sum()
        loss = ((self.net(batch[0]) - batch[1])[:, 0].square() * kept).sum() / weight.clamp(min=1)
        return {"loss": loss, "weight": weight}


class Searching(Plain):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3, line_search_fn="strong_wolfe")


class Gan(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        real, (first, second) = batch[0], self.optimizers()
        noise = real[:, :4]
        with self.toggled_optimizer(first):
            first.zero_grad()
            self.manual_backward(-self.critic(self.generator(noise)).mean())
            self.clip_gradients(first, 0.5, "norm")
            first.step()
        with self.toggled_optimizer(second):
            second.zero_grad()
            fake = self.critic(self.generator(noise).detach())
            self.manual_backward(F.softplus(fake).mean() + F.softplus(-self.critic(real)).mean())
            second.step()

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.01),
            torch.optim.Adam(self.critic.parameters(), lr=0.01),
        ]


class TurnByTurn(Gan):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = True

    def training_step(self, batch, batch_idx, optimizer_idx):
        noise = batch[0][:, :4]
        if optimizer_idx == 0:
            return -self.critic(self.generator(noise)).mean()
        fake = self.critic(self.generator(noise).detach())
        return F.softplus(fake).mean() + F.softplus(-self.critic(batch[0])).mean()


class Partial(Plain):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Linear(3, 3)


RUNS = {
    "plain": (Plain, {}),
    "accumulated and clipped": (Plain, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
    "a window that a limit cuts": (Plain, {"accumulate_grad_batches": 3, "limit_train_batches": 5}),
    "weighted": (Weighted, {"accumulate_grad_batches": 2}),
    "weighted steps": (Weighted, {}),
    "a schedule that monitors": (Plateau, {"max_epochs": 4}),
    "batch normalisation": (Normalised, {"sync_batchnorm": True}),
    "a line search": (Searching, {"limit_train_batches": 2, "max_epochs": 1}),
    "gan": (Gan, {}),
    "optimizers in turns": (TurnByTurn, {}),
    "unused parameters": (Partial, {"strategy": "ddp_find_unused_parameters_true"}),
}


def data(samples=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 8, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def run(name, world, folder, **more):
    """Train one of the models, and return what came of it as plain data."""
    kind, flags = RUNS[name]
    flags = {"max_epochs": 2, **flags, **more}
    if world == 1:
        flags.pop("strategy", None)
    torch.manual_seed(3)
    module = kind()
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=world, default_root_dir=folder, **off, **flags)
    train = DataLoader(data(), batch_size=GLOBAL_BATCH // world, shuffle=True)
    odd = DataLoader(torch.utils.data.Subset(data(), range(13)), batch_size=4)
    trainer.fit(module, train, odd if isinstance(module, Plain) else None)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    weights = {key: value.double().flatten().tolist() for key, value in module.state_dict().items()}
    return {
        "weights": weights,
        "metrics": metrics,
        "steps": trainer.global_step,
        "files": sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.ckpt")),
    }


if __name__ == "__main__":
    target, asked = Path(sys.argv[1]), int(sys.argv[2])
    results = {}
    for index, each in enumerate(RUNS):
        results[each] = run(each, asked, target.parent / f"run{index}")
    if torch.distributed.get_rank() == 0:
        target.write_text(json.dumps(results))
