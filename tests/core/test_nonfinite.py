"""A loss that is infinite or no number does not end in weights that are."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationValueError, NonFiniteError, NotYetSupported


class Spoilt(L.LightningModule):
    """One weight; a batch of the number 3 spoils the loss in one way or another."""

    def __init__(self, way="nan"):
        super().__init__()
        self.way, self.steps = way, 0
        self.weight = torch.nn.Parameter(torch.ones(1))

    def loss(self, batch):
        value = batch[0].sum()
        loss = (self.weight * (value + 1)).square().sum()
        if value == 3 and self.way == "gradient":
            # the square root has no gradient at zero: infinity times nothing is no number
            return loss + (self.weight - self.weight.detach()).sum().abs().sqrt()
        return loss * {"nan": float("nan"), "inf": float("inf")}.get(self.way, 1.0) if value == 3 else loss

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class ByHand(Spoilt):
    def __init__(self, way="nan"):
        super().__init__(way)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.steps += 1
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


def numbers(count=6, batch_size=1):
    return DataLoader(TensorDataset(torch.arange(float(count))), batch_size)


def trained_on(values):
    """The weight after training on the batches of these values alone."""
    weight = 1.0
    for value in values:
        weight -= 1e-3 * 2 * weight * (value + 1) ** 2
    return weight


@pytest.mark.parametrize("module", [Spoilt, ByHand])
@pytest.mark.parametrize("way", ["nan", "inf"])
def test_a_run_ends_with_an_error_that_says_where_and_good_weights(quiet, module, way):
    model = module(way)
    with pytest.raises(NonFiniteError, match=rf"the loss of batch 3 of epoch 0 is {way}"):
        quiet().fit(model, numbers())
    assert model.steps == 4
    assert model.weight.item() == pytest.approx(trained_on([0, 1, 2]))
    assert issubclass(NonFiniteError, ValueError)


def test_a_state_that_is_no_number_is_never_saved_as_good(quiet, tmp_path):
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(NonFiniteError):
        quiet(callbacks=[saver], enable_checkpointing=None).fit(Spoilt(), numbers())
    files = list(tmp_path.glob("*.ckpt"))
    assert len(files) == 3
    for path in files:
        assert torch.load(path, weights_only=True)["state_dict"]["weight"].isfinite().all()


def test_weights_that_are_no_numbers_do_not_end_a_run_well(quiet):
    class Leaps(Spoilt):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e38)

    with pytest.raises(
        NonFiniteError, match="the parameter 'weight' is infinite or no number after batch 1 of the run"
    ):
        quiet().fit(Leaps(), numbers(2, 2))


@pytest.mark.parametrize("way", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_are_left_out_if_that_is_asked_for(quiet, way, accumulate):
    model, alone = Spoilt(way), Spoilt("none")
    trainer = quiet(on_nonfinite="skip", accumulate_grad_batches=accumulate)
    with pytest.warns(UserWarning, match=r"LY-T020.*leaves out batch \d of epoch 0") as told:
        trainer.fit(model, numbers())
    assert len(told) == 1
    assert model.weight.isfinite().all()
    assert model.steps == 6
    if accumulate == 1:
        assert model.weight.item() == pytest.approx(trained_on([0, 1, 2, 4, 5]))
        assert trainer.global_step == 5
    quiet(on_nonfinite="skip").fit(alone, numbers())
    assert alone.weight.item() == pytest.approx(trained_on(range(6)))


def test_a_manual_step_without_its_backward_pass_keeps_the_weights(quiet):
    model = ByHand()
    with pytest.warns(UserWarning, match="LY-T020"):
        quiet(on_nonfinite="skip").fit(model, numbers())
    assert model.weight.item() == pytest.approx(trained_on([0, 1, 2, 4, 5]))


def test_nobody_looks_if_that_is_asked_for(quiet):
    model = Spoilt()
    quiet(on_nonfinite="ignore").fit(model, numbers())
    assert model.weight.isnan().all()


def test_every_process_leaves_the_batch_out(quiet):
    # the second process has the number 3
    model = Spoilt()
    quiet(accelerator="cpu", devices=2, on_nonfinite="skip").fit(model, numbers())
    weight = 1.0
    for pair in ((0, 1), (4, 5)):
        weight -= 1e-3 * sum(2 * weight * (value + 1) ** 2 for value in pair) / 2
    assert model.weight.item() == pytest.approx(weight)


def test_wrong_values_are_refused(quiet):
    with pytest.raises(MisconfigurationValueError, match="`on_nonfinite` must be"):
        quiet(on_nonfinite="stop")
    with pytest.raises(NotYetSupported, match="rollback"):
        quiet(on_nonfinite="rollback")
