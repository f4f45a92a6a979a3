"""Fine-tuning: what stands still, what joins when, and that a resumed run remembers."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.callbacks import BackboneFinetuning, BaseFinetuning, LambdaCallback
from leyden.core.errors import LeydenWarning, MisconfigurationException


class Transfer(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.backbone(batch[0])).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), lr=0.5, momentum=0.9)


def data():
    return DataLoader(TensorDataset(torch.randn(16, 3, generator=torch.Generator().manual_seed(1))), batch_size=4)


def rates(trainer):
    return [group["lr"] for group in trainer.optimizers[0].param_groups]


def test_the_backbone_joins_and_its_rate_rises_to_that_of_the_head(quiet):
    seen, weights = [], []

    def look(trainer, pl_module):
        seen.append(rates(trainer))
        weights.append(pl_module.backbone[0].weight.detach().clone())

    model = Transfer()
    start = model.backbone[0].weight.detach().clone()
    callbacks = [BackboneFinetuning(1, lambda epoch: 3.0), LambdaCallback(on_train_epoch_end=look)]
    quiet(max_epochs=5, callbacks=callbacks).fit(model, data())
    assert seen == [[0.5], [0.5, 0.05], [0.5, pytest.approx(0.15)], [0.5, pytest.approx(0.45)], [0.5, 0.5]]
    assert torch.equal(weights[0], start)
    assert not torch.equal(weights[1], start)


def test_batch_normalization_stands_still_if_it_is_told_to(quiet):
    for unfreeze in (1, 9):
        model = Transfer()
        norm = {k: v.clone() for k, v in model.backbone[1].state_dict().items()}
        quiet(max_epochs=2, callbacks=BackboneFinetuning(unfreeze, train_bn=False)).fit(model, data())
        assert all(torch.equal(v, norm[k]) for k, v in model.backbone[1].state_dict().items())
    model = Transfer()
    quiet(max_epochs=1, callbacks=BackboneFinetuning(9)).fit(model, data())
    assert model.backbone[1].num_batches_tracked == 4


@pytest.mark.parametrize("train_bn", [True, False])
@pytest.mark.parametrize("save_at", [(0, 3), (1, 1), (2, 3)])
def test_a_resumed_run_ends_with_the_same_bits(quiet, tmp_path, save_at, train_bn):
    def callbacks(at=None):
        def save(trainer, pl_module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == at:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

        return [BackboneFinetuning(1, train_bn=train_bn), LambdaCallback(on_train_batch_end=save)]

    straight, resumed = Transfer(), Transfer()
    first, second = (quiet(max_epochs=4, callbacks=c) for c in (callbacks(save_at), callbacks()))
    first.fit(straight, data())
    second.fit(resumed, data(), ckpt_path=tmp_path / "mid.ckpt")
    assert rates(first) == rates(second)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert [p.requires_grad for p in straight.parameters()] == [p.requires_grad for p in resumed.parameters()]
    assert resumed.backbone[1].track_running_stats == train_bn


def test_a_trainer_that_goes_on_keeps_the_groups_and_a_new_model_does_not(quiet):
    trainer = quiet(max_epochs=2, callbacks=BackboneFinetuning(1))
    model = Transfer()
    trainer.fit(model, data())
    trainer.flags.max_epochs = 3
    trainer.fit(model, data())
    assert rates(trainer) == [0.5, 0.1]
    assert model.backbone[0].weight.requires_grad
    trainer.flags.max_epochs = 1
    trainer.fit(Transfer(), data())
    assert rates(trainer) == [0.5]


def test_tools():
    model = Transfer()
    BaseFinetuning.freeze([model.backbone, [model.head]], train_bn=True)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["backbone.1.weight", "backbone.1.bias"]
    assert not list(BaseFinetuning.filter_params(model, train_bn=False))
    assert len(list(BaseFinetuning.filter_params(model, requires_grad=False))) == 6
    BaseFinetuning.freeze(nn.ModuleDict({"b": model.backbone}), train_bn=False)
    assert not model.backbone[1].track_running_stats
    BaseFinetuning.make_trainable(model)
    assert all(p.requires_grad for p in model.parameters())
    assert model.backbone[1].track_running_stats


def test_groups_get_what_the_optimizer_does_not_have():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    optimizer = torch.optim.SGD(one.parameters(), lr=1.0)
    BaseFinetuning.unfreeze_and_add_param_group(other, optimizer, initial_denom_lr=4)
    assert [g["lr"] for g in optimizer.param_groups] == [1.0, 0.25]
    assert len(optimizer.param_groups[1]["params"]) == 2
    with pytest.warns(LeydenWarning, match="already exist within another group"):
        BaseFinetuning.unfreeze_and_add_param_group([one, other], optimizer, lr=3)
    assert len(optimizer.param_groups) == 2


def test_a_model_without_backbone_is_refused(quiet, tiny, numbers):
    with pytest.raises(MisconfigurationException, match="`backbone` attribute"):
        quiet(callbacks=BackboneFinetuning()).fit(tiny(), numbers())
