"""Number formats: what they do to parameters, batches, losses and files."""

import pytest
import torch

import leyden.core as L
from leyden.core.errors import MisconfigurationException
from leyden.core.gradient_checkpointing import keep, recompute
from leyden.core.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision


class Watching(L.LightningModule):
    """Notes the formats that its step sees."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        y = self.net(batch["x"])
        self.seen = {
            "x": batch["x"].dtype,
            "index": batch["index"].dtype,
            "y": y.dtype,
            "made": torch.zeros(1).dtype,
            "weight": self.net[0].weight.dtype,
        }
        return y.float().square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches(n=2):
    return [{"x": torch.ones(3, 4), "index": torch.arange(3)} for _ in range(n)]


F32, F64, B16 = torch.float32, torch.float64, torch.bfloat16


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("32-true", (F32, F32, F32, F32)),
        (64, (F64, F64, F64, F64)),
        ("bf16-true", (B16, B16, B16, B16)),
        ("bf16-mixed", (F32, B16, F32, F32)),
        ("bf16", (F32, B16, F32, F32)),
    ],
)
def test_a_step_sees_its_format_and_leaves_the_default_as_it_was(quiet, precision, expected):
    module = Watching()
    quiet(accelerator="cpu", precision=precision).fit(module, batches())
    seen = module.seen
    assert (seen["x"], seen["y"], seen["made"], seen["weight"]) == expected
    assert seen["index"] == torch.int64
    assert torch.get_default_dtype() == F32


def test_a_step_that_raises_leaves_the_default_as_it_was(quiet):
    class Failing(Watching):
        def training_step(self, batch, batch_idx):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        quiet(accelerator="cpu", precision="64-true").fit(Failing(), batches())
    assert torch.get_default_dtype() == F32


def test_float16_on_the_cpu_becomes_bfloat16_with_a_warning(quiet):
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'`"):
        trainer = quiet(accelerator="cpu", precision="16-mixed")
    assert trainer.precision == "bf16-mixed"


class Scaling(MixedPrecision):
    """float16's way of stepping, with numbers that the CPU can compute: the loss is scaled, the rest stays."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2))

    def forward_context(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=False)


class Norms(L.Callback):
    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.found.append(float(pl_module.net[0].weight.grad.norm()))


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaled_loss_changes_neither_gradients_nor_weights(quiet, manual, accumulate):
    class Manual(Watching):
        automatic_optimization = not manual

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

    if manual and accumulate > 1:
        accumulate = 1
    found = []
    for plugin in (Precision(), Scaling()):
        torch.manual_seed(0)
        module, norms = Manual(), Norms()
        flags = {} if manual else {"gradient_clip_val": 0.01, "accumulate_grad_batches": accumulate}
        trainer = quiet(accelerator="cpu", plugins=plugin, callbacks=[norms], **flags)
        trainer.fit(module, batches(4))
        found.append((norms.found, module.net[0].weight.detach()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1])
    assert trainer.scaler.get_scale() > 1024.0


def test_a_step_with_infinite_gradients_is_left_out(quiet):
    class Infinite(Watching):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (float("inf") if batch_idx == 0 else 1.0)

    module, plugin = Infinite(), Scaling()
    quiet(accelerator="cpu", plugins=plugin, limit_train_batches=1).fit(module, batches())
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert plugin.scaler.get_scale() < 1024.0


def test_the_scale_is_part_of_a_checkpoint(quiet, tmp_path):
    first = quiet(accelerator="cpu", plugins=Scaling(), max_epochs=1)
    first.fit(Watching(), batches(4))
    first.save_checkpoint(tmp_path / "a.ckpt")
    assert "Scaling" in torch.load(tmp_path / "a.ckpt", weights_only=True)
    second = quiet(accelerator="cpu", plugins=Scaling(), max_epochs=1)
    second.fit(Watching(), batches(4), ckpt_path=tmp_path / "a.ckpt")
    assert second.scaler.get_scale() == first.scaler.get_scale() > 1024.0


def test_a_scaled_loss_and_an_optimizer_that_runs_the_model_do_not_go_together(quiet):
    class Searching(Watching):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(MisconfigurationException, match="AMP and the LBFGS optimizer are not compatible"):
        quiet(accelerator="cpu", plugins=Scaling()).fit(Searching(), batches())


def test_a_scaler_has_no_place_beside_bfloat16():
    with pytest.raises(ValueError, match="does not use a scaler"):
        MixedPrecision("bf16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match="must be '16-mixed' or 'bf16-mixed'"):
        MixedPrecision("32-true", "cpu")
    with pytest.raises(ValueError, match="must be one of"):
        HalfPrecision("32-true")


def test_complex_numbers_are_widened():
    assert DoublePrecision().convert_input(torch.ones(1, dtype=torch.complex64)).dtype == torch.complex128


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Tanh())

    def forward(self, x):
        return x + self.layers(x)


def blocks():
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), Block(), torch.nn.Linear(4, 1))


def gradients(net):
    """Return the gradients, and how many tensors the forward pass kept for them."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(0) or t, lambda t: t):
        torch.manual_seed(1)
        loss = net(torch.ones(8, 4)).sum()
    count = len(kept)
    loss.backward()
    return [p.grad for p in net.parameters()], count


@pytest.mark.parametrize("what", [True, Block, [Block], lambda module: isinstance(module, Block)])
def test_recomputed_activations_give_the_same_gradients_and_are_not_kept(what):
    plain, sparing = blocks(), blocks()
    names = list(sparing.state_dict())
    changed = recompute(sparing, what)
    assert len(changed) == 2
    assert recompute(sparing, what) == []
    (expected, whole), (found, less) = gradients(plain), gradients(sparing)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert less < whole
    assert list(sparing.state_dict()) == names
    keep(changed)
    assert type(sparing[0]) is Block


@pytest.mark.parametrize("what", [[torch.nn.Conv2d], lambda module: False])
def test_a_choice_that_names_no_part_is_refused(what):
    with pytest.raises(MisconfigurationException, match="names no part of Sequential"):
        recompute(blocks(), what)


def test_a_choice_of_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match="a list of module classes, or a function"):
        recompute(blocks(), 3)


def test_the_flag_holds_for_the_length_of_a_fit(quiet):
    class Deep(Watching):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(Block(), Block(), torch.nn.Linear(4, 1))

        def training_step(self, batch, batch_idx):
            self.kind = type(self.net[0])
            return self.net(batch["x"]).square().mean()

    module = Deep()
    quiet(accelerator="cpu", activation_checkpointing=[Block]).fit(module, batches())
    assert module.kind is not Block
    assert type(module.net[0]) is Block
