"""Loops of a user's own that several processes run together, and one process alone: their results are compared.

As a script it runs all of them as one of several processes, and the first process writes what came of them.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import leyden.core as L

GLOBAL_BATCH = 8


def data(samples=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 8, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def net(middle=None):
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), middle or torch.nn.Identity(), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    )


def loader(fabric, shuffle=True, **options):
    torch.manual_seed(7)
    return fabric.setup_dataloaders(DataLoader(data(), GLOBAL_BATCH // fabric.world_size, shuffle=shuffle), **options)


def weights(fabric, *modules):
    """The whole weights of modules, on the first process."""
    states = [module._strategy.model_state_dict() for module in modules]
    return {
        f"{i}.{name}": value.double().flatten().tolist()
        for i, state in enumerate(states)
        for name, value in state.items()
    }


def plain(fabric):
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    for _ in range(2):
        for x, y in loader(fabric):
            optimizer.zero_grad()
            fabric.backward(F.mse_loss(model(x), y))
            fabric.clip_gradients(model, optimizer, max_norm=0.1)
            optimizer.step()
    return weights(fabric, model)


def separately(fabric):
    """The module first, and then an optimiser of its parameters, which are stepped with a closure."""
    model = fabric.setup_module(net())
    optimizer = fabric.setup_optimizers(torch.optim.SGD(model.parameters(), lr=0.05))
    for x, y in loader(fabric):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            fabric.backward(loss)
            return loss

        optimizer.step(closure)
    return weights(fabric, model)


def accumulated(fabric):
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for i, (x, y) in enumerate(loader(fabric)):
        open_window = i % 3 != 2
        with fabric.no_backward_sync(model, enabled=open_window):
            fabric.backward(F.mse_loss(model(x), y) / 3)
        if not open_window:
            optimizer.step()
            optimizer.zero_grad()
    return weights(fabric, model)


def gan(fabric):
    torch.manual_seed(2)
    generator, critic = (
        torch.nn.Linear(4, 8),
        torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)),
    )
    generator, first = fabric.setup(generator, torch.optim.Adam(generator.parameters(), lr=0.01))
    critic, second = fabric.setup(critic, torch.optim.Adam(critic.parameters(), lr=0.01))
    for real, _ in loader(fabric):
        fake = generator(real[:, :4])
        second.zero_grad()
        fabric.backward(F.softplus(critic(fake.detach())).mean() + F.softplus(-critic(real)).mean())
        second.step()
        first.zero_grad()
        fabric.backward(-critic(fake).mean())
        first.step()
    return weights(fabric, generator, critic)


def gradient_penalty(fabric):
    """A gradient with respect to inputs, taken in between, is none of the training's backward passes."""
    critic = net()
    critic, optimizer = fabric.setup(critic, torch.optim.SGD(critic.parameters(), lr=0.1))
    for x, _ in loader(fabric):
        x = x.clone().requires_grad_()
        slope = torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
        optimizer.zero_grad()
        fabric.backward((slope.norm(dim=1) - 1).square().mean() + critic(x).mean())
        optimizer.step()
    return weights(fabric, critic)


def normalised(fabric):
    """Two forward passes of a batch-normalised module before one backward pass."""
    model = net(torch.nn.BatchNorm1d(16))
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    # processes have the same batches, so that their statistics are those of one
    same = fabric.setup_dataloaders(DataLoader(data(), GLOBAL_BATCH), use_distributed_sampler=False)
    for x, y in same:
        optimizer.zero_grad()
        fabric.backward(F.mse_loss(model(x), y) + F.mse_loss(model(-x), -y))
        optimizer.step()
    return weights(fabric, model)


def continued(fabric):
    """Saved in the middle of a pass, and gone on with by other objects."""
    folder = Path(fabric.broadcast(tempfile.mkdtemp() if fabric.is_global_zero else ""))
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    batches = loader(fabric)
    for i, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        fabric.backward(F.mse_loss(model(x), y))
        optimizer.step()
        if i == 2:
            fabric.save(folder / "a.ckpt", {"model": model, "optimizer": optimizer, "loader": batches})
    whole = weights(fabric, model)
    model = fabric.setup_module(torch.nn.Sequential(*net()))
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=0.5))
    batches = loader(fabric)
    fabric.load(folder / "a.ckpt", {"model": model, "optimizer": optimizer, "loader": batches})
    for x, y in batches:
        optimizer.zero_grad()
        fabric.backward(F.mse_loss(model(x), y))
        optimizer.step()
    assert weights(fabric, model) == whole
    fabric.barrier()
    if fabric.is_global_zero:
        shutil.rmtree(folder)
    return whole


class Halves(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.left, self.right = torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)

    def forward(self, x, side):
        return self.left(x) if side == "left" else self.right(x)

    def both(self, x):
        return self(x, "left") + self.right(x)


def in_turns(fabric):
    """Two optimisers for two halves of a module, of which a batch uses one, called directly and by a method."""
    model = Halves()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.left, model.right)]
    model, *optimizers = fabric.setup(model, *optimizers)
    model.mark_forward_method("both")
    for i, (x, y) in enumerate(loader(fabric)):
        side = ("left", "right", "both")[i % 3]
        output = model.both(x) if side == "both" else model(x, side)
        fabric.backward(F.mse_loss(output, y))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return weights(fabric, model)


class Hidden(torch.nn.Module):
    """All that is trained is inside of a part that is computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.frozen, self.trained = torch.nn.Linear(8, 8).requires_grad_(False), torch.nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.frozen(x).requires_grad_()
        return {"out": checkpoint(self.trained, hidden, use_reentrant=True)}


def recomputed(fabric):
    model = Hidden()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.trained.parameters(), lr=0.1))
    for x, y in loader(fabric):
        optimizer.zero_grad()
        fabric.backward(F.mse_loss(model(x)["out"], y))
        optimizer.step()
    return weights(fabric, model)


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net()

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning_module(fabric):
    model = Regression()
    model, optimizer = fabric.setup(model, model.configure_optimizers())
    for i, batch in enumerate(loader(fabric)):
        optimizer.zero_grad()
        fabric.backward(model.training_step(batch, i))
        optimizer.step()
    return weights(fabric, model)


class Numbers(IterableDataset):
    def __iter__(self):
        world, rank = (2, torch.distributed.get_rank()) if torch.distributed.is_initialized() else (1, 0)
        return iter(torch.arange(rank * 6, 12, world, dtype=torch.float32))


def measured(fabric):
    """Samples of an odd number, each counted once; and data that end at different times, which hang nobody."""
    odd = fabric.setup_dataloaders(DataLoader(Subset(data(), range(13)), 2), evaluation=True)
    model = fabric.setup(net(torch.nn.BatchNorm1d(16)))
    model.eval()
    with torch.no_grad():
        errors = torch.cat([(model(x) - y).square().flatten() for x, y in odd])
    total, count = fabric.all_reduce([errors.sum(), len(errors)], reduce_op="sum")
    rounds = sum(1 for _ in fabric.setup_dataloaders(DataLoader(Numbers(), 2)))
    return {
        "error": [float(total)],
        "count": [float(count)],
        "lengths": fabric.all_gather(len(odd)).flatten().tolist(),
        "rounds": fabric.all_gather(torch.tensor(rounds)).flatten().tolist(),
    }


TRAINED = (
    plain, separately, accumulated, continued, gan, gradient_penalty, normalised, in_turns, recomputed,
    lightning_module,
)  # fmt: skip
# FSDP frees parameters in any backward pass, so that none can follow one through inputs
SHARDED = (plain, separately, accumulated, continued, gan, in_turns, lightning_module)


def everything(fabric):
    """What comes of the loops that a strategy can run."""
    loops = SHARDED if fabric.strategy.sharded else (*TRAINED, measured)
    return {loop.__name__: loop(fabric) for loop in loops}


if __name__ == "__main__":
    several = L.Fabric(accelerator="cpu", devices=2, strategy=sys.argv[2])
    several.launch()
    found = everything(several)
    if several.is_global_zero:
        Path(sys.argv[1]).write_text(json.dumps(found))
