"""Several optimisers that step by themselves, windows that are cut, and what the 1.x names of hooks still do."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationException


def loader(n=24, batch_size=4):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(7))
    return DataLoader(TensorDataset(x), batch_size=batch_size)


def trainer(tmp_path, **flags):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(default_root_dir=tmp_path, **{**quiet, "max_epochs": 2, **flags})


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


class Gan(L.LightningModule):
    def __init__(self, frequencies=(None, None)):
        super().__init__()
        torch.manual_seed(5)
        self.generator, self.critic = torch.nn.Linear(2, 6), torch.nn.Linear(6, 1)
        self.frequencies = frequencies
        self.calls = []

    def losses(self, x):
        fake = self.critic(self.generator(x[:, :2])).mean()
        return -fake, fake - self.critic(x).mean()

    def training_step(self, batch, batch_idx, optimizer_idx):
        self.calls.append(optimizer_idx)
        needs = [p.requires_grad for p in self.parameters()]
        assert needs == [optimizer_idx == 0] * 2 + [optimizer_idx == 1] * 2
        return self.losses(batch[0])[optimizer_idx]

    def configure_optimizers(self):
        optimizers = [
            torch.optim.Adam(self.generator.parameters(), lr=0.01),
            torch.optim.SGD(self.critic.parameters(), lr=0.1, momentum=0.9),
        ]
        if self.frequencies == (None, None):
            return optimizers
        return [{"optimizer": o, "frequency": f} for o, f in zip(optimizers, self.frequencies, strict=True)]


def test_several_optimizers_step_in_turn_at_every_batch(tmp_path):
    model, hand = Gan(), Gan()
    optimizers = hand.configure_optimizers()
    for _ in range(2):
        for (x,) in loader():
            for i, optimizer in enumerate(optimizers):
                optimizer.zero_grad()
                hand.losses(x)[i].backward()
                optimizer.step()
    t = trainer(tmp_path)
    t.fit(model, loader())
    assert same(model, hand)
    assert t.global_step == 24
    assert all(p.requires_grad for p in model.parameters())


def test_frequencies_say_for_how_many_batches_each_has_its_turn(tmp_path):
    model = Gan((1, 2))
    trainer(tmp_path, max_epochs=1).fit(model, loader())
    assert model.calls == [0, 1, 1, 0, 1, 1]


def test_half_given_frequencies_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="either all or none have a `frequency`"):
        trainer(tmp_path).fit(Gan((1, None)), loader())


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.layer(batch[0]), batch[0].sum(1, keepdim=True))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def by_hand(windows):
    hand = Plain()
    optimizer = hand.configure_optimizers()
    batches = list(loader())
    for window in windows:
        optimizer.zero_grad()
        for i in window:
            (hand.training_step(batches[i], i) / len(window)).backward()
        optimizer.step()
    return hand


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("cut", ["minus one", "stop", "no length"])
def test_a_window_that_is_cut_steps_with_the_mean_of_what_it_has(tmp_path, cut, closure):
    class Cut(Plain):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if cut == "minus one" and batch_idx == 5 else None

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if cut == "stop" and batch_idx == 4:
                self.trainer.should_stop = True

    if closure:
        Cut.optimizer_step = lambda self, e, i, o, c: L.LightningModule.optimizer_step(self, e, i, o, c)

    class Unsized:
        def __iter__(self):
            return iter(list(loader())[:5])

    model = Cut()
    t = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=3)
    t.fit(model, Unsized() if cut == "no length" else loader())
    hand = by_hand([[0, 1, 2], [3, 4]])
    assert all(
        torch.allclose(a, b, rtol=0, atol=1e-7) for a, b in zip(model.parameters(), hand.parameters(), strict=True)
    )
    assert t.global_step == 2


def test_epoch_end_hooks_get_the_outputs_of_all_steps(tmp_path):
    seen = {}

    class Outputs(Plain):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "i": batch_idx}

        def training_epoch_end(self, outputs):
            seen["train"] = [o["i"] for o in outputs]
            assert all(not o["loss"].requires_grad for o in outputs)
            self.log("n", float(len(outputs)))

        def validation_step(self, batch, batch_idx):
            return batch_idx

        def validation_epoch_end(self, outputs):
            seen["val"] = outputs

        def test_step(self, batch, batch_idx, dataloader_idx):
            return (dataloader_idx, batch_idx)

        def test_epoch_end(self, outputs):
            seen["test"] = outputs

    t = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    model = Outputs()
    t.fit(model, loader(), loader(8))
    t.test(model, [loader(4), loader(8)], verbose=False)
    assert seen == {"train": [0, 1, 2, 3, 4, 5], "val": [0, 1], "test": [[(0, 0)], [(1, 0), (1, 1)]]}


def test_step_end_hooks_get_the_output_of_the_step(tmp_path):
    class Ends(Plain):
        def training_step(self, batch, batch_idx):
            return {"x": batch[0]}

        def training_step_end(self, output):
            self.log("seen", 1.0, on_step=True)
            return F.mse_loss(self.layer(output["x"]), output["x"].sum(1, keepdim=True))

        def validation_step(self, batch, batch_idx):
            return batch_idx

        def validation_step_end(self, output):
            self.log("index", float(output), batch_size=1)

    model, plain = Ends(), Plain()
    t = trainer(tmp_path, num_sanity_val_steps=0)
    t.fit(model, loader(), loader(12))
    trainer(tmp_path).fit(plain, loader())
    assert same(model, plain)
    assert float(t.callback_metrics["index"]) == 1.0


def test_the_number_of_batches_in_a_window_may_change_between_epochs(tmp_path):
    class Changing(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.accumulate_grad_batches = trainer.current_epoch + 1

    t = trainer(tmp_path, max_epochs=3, callbacks=[Changing()])
    t.fit(Plain(), loader())
    assert t.global_step == 6 + 3 + 2
