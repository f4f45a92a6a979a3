"""Weights of 8 and 4 bits: how exact they are, what trains around them, and that files hold plain weights."""

import sys

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.errors import MisconfigurationException, MissingExtraError
from leyden.core.plugins import Quantized

# the largest error of a weight, in parts of the largest of its row (or of 64 neighbours), and a bound for outputs
MODES = {"int8": (1 / 254, 0.01), "int8-dynamic": (1 / 254, 0.02), "float8": (1 / 28, 0.05), "nf4": (1 / 6, 0.15)}
TRAINABLE = ("int8", "float8", "nf4")


class Tuned(L.LightningModule):
    """A frozen base, with a layer before and a head after it that train."""

    def __init__(self, frozen=True):
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(32, 32)
        self.base = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)).requires_grad_(not frozen)
        self.head = nn.Linear(32, 1)
        self.kinds, self.losses = {}, []

    def forward(self, x):
        return self.head(self.base(self.before(x)))

    def training_step(self, batch, batch_idx):
        self.kinds = {name: type(p).__name__ for name, p in self.named_parameters()}
        loss = (self(batch) - batch[:, :4].sum(1, keepdim=True)).square().mean()
        self.losses.append(float(loss.detach()))
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test", self(batch).float().square().mean())

    def predict_step(self, batch, batch_idx):
        return self(batch)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def batches(n=8):
    return list(torch.randn(n, 6, 32, generator=torch.Generator().manual_seed(1)))


def of(quiet, mode, **flags):
    return quiet(accelerator="cpu", plugins=[Quantized(mode)], **flags)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_rounded_within_bounds_and_never_again(mode, dtype):
    torch.manual_seed(0)
    net = nn.Linear(64, 32).to(dtype)
    net.weight.data[3] = 0  # a pruned row
    before = net.weight.detach().clone()
    quantized = Quantized(mode)
    rounded = []
    for _ in range(5):
        quantized.convert_module(net)
        assert type(net.weight) is not nn.Parameter
        rounded.append(net.state_dict()["weight"])
        quantized.teardown()
    assert all(torch.equal(again, rounded[0]) for again in rounded)
    assert torch.equal(net.weight, rounded[0])
    assert (rounded[0].dtype, type(rounded[0]), net.weight.requires_grad) == (dtype, torch.Tensor, True)
    error, scale = (rounded[0].float() - before.float()).abs(), before.float().abs().amax(1, keepdim=True)
    own = 0 if dtype == torch.float32 else 2**-8  # bfloat16 rounds what is read back once more
    assert 0 < (error / scale.clamp(min=1e-9)).max() <= (MODES[mode][0] + own) * (1 + 1e-5)


@pytest.mark.parametrize(("mode", "bytes_per_weight"), [("int8", 1), ("float8", 1), ("nf4", 0.5)])
def test_weights_need_less_memory(mode, bytes_per_weight):
    net = Quantized(mode).convert_module(nn.Linear(256, 256, bias=False))
    names, _ = net.weight.__tensor_flatten__()
    held = sum(getattr(net.weight, name).nbytes for name in names)
    assert bytes_per_weight * 65536 <= held < (bytes_per_weight + 0.15) * 65536


@pytest.mark.parametrize("mode", MODES)
def test_it_evaluates_near_32_bits_and_leaves_a_plain_module(quiet, mode):
    module = Tuned(frozen=False)
    with torch.no_grad():
        true = torch.cat([module(batch) for batch in batches()])
    trainer = of(quiet, mode)
    given = torch.cat(trainer.predict(module, batches()))
    assert 0 < (given - true).norm() / true.norm() < MODES[mode][1]
    assert torch.equal(torch.cat(trainer.predict(module, batches())), given)
    trainer.test(module, batches(), verbose=False)
    assert {type(p) for p in module.parameters()} == {nn.Parameter}
    assert all(p.requires_grad for p in module.parameters())
    assert trainer.precision == mode


def test_a_checkpoint_of_a_plain_model_is_loaded_before_weights_are_rounded(quiet, tmp_path):
    trained = Tuned()
    nn.init.normal_(trained.base[0].weight)
    path = tmp_path / "plain.ckpt"
    trainer = quiet(accelerator="cpu", max_steps=0)
    trainer.fit(trained, batches())
    trainer.save_checkpoint(path)
    other = Tuned()
    from_file = of(quiet, "int8").predict(other, batches(), ckpt_path=path)
    assert torch.equal(torch.cat(from_file), torch.cat(of(quiet, "int8").predict(trained, batches())))


@pytest.mark.parametrize("mode", TRAINABLE)
def test_what_is_around_frozen_weights_trains(quiet, mode):
    module = Tuned()
    of(quiet, mode, max_steps=1).predict(module, batches())  # rounds the base
    base, before = module.base[0].weight.detach().clone(), module.before.weight.detach().clone()
    of(quiet, mode, max_epochs=30).fit(module, batches())
    kinds = {name for name, kind in module.kinds.items() if kind != "Parameter"}
    assert kinds == {"base.0.weight", "base.2.weight"}
    assert sum(module.losses[-8:]) < 0.2 * sum(module.losses[:8])
    assert torch.equal(module.base[0].weight, base)
    assert not torch.equal(module.before.weight, before)
    assert not module.base[0].weight.requires_grad


@pytest.mark.parametrize("mode", TRAINABLE)
def test_gradients_pass_through_rounded_weights(mode):
    torch.manual_seed(0)
    net, x = nn.Linear(64, 64).requires_grad_(False), torch.randn(4, 64, requires_grad=True)
    quantized = Quantized(mode)
    quantized.convert_module(net)
    (given,) = torch.autograd.grad(net(x).square().sum(), x)
    quantized.teardown()  # a plain layer, of the same rounded weights
    (true,) = torch.autograd.grad(net(x).square().sum(), x)
    torch.testing.assert_close(given, true, rtol=1e-4, atol=1e-4)


def test_a_run_around_frozen_weights_goes_on_from_its_checkpoint(quiet, tmp_path):
    def fit(epochs, folder, path=None):
        module, saver = Tuned(), L.callbacks.ModelCheckpoint(dirpath=tmp_path / folder, save_last=True)
        trainer = of(quiet, "nf4", max_epochs=epochs, callbacks=[saver], enable_checkpointing=None)
        trainer.fit(module, batches(), ckpt_path=path)
        return module, saver.last_model_path

    whole, path = fit(4, "whole")
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert {type(value) for value in saved.values()} == {torch.Tensor}
    assert saved.keys() == Tuned().state_dict().keys()
    assert torch.equal(saved["base.0.weight"], whole.base[0].weight)
    again, _ = fit(4, "parts", fit(2, "parts")[1])
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_weights_that_were_to_be_trained_are_refused(quiet):
    module = Tuned(frozen=False)
    with pytest.raises(MisconfigurationException, match=r"before.weight, base.0.weight, base.2.weight, \.\..*Freeze"):
        of(quiet, "int8").fit(module, batches())
    assert {type(p) for p in module.parameters()} == {nn.Parameter}
    assert module.base[0].weight.requires_grad


def test_a_mode_without_backward_pass_is_refused_in_training(quiet):
    with pytest.raises(MisconfigurationException, match="is for evaluation: it has no backward pass"):
        of(quiet, "int8-dynamic").fit(Tuned(), batches())


def test_some_layers_stay_as_they_are():
    class Own(nn.Linear):
        pass

    net = nn.ModuleDict(
        {
            "model": nn.ModuleDict({"lm_head": nn.Linear(64, 8), "body": nn.Linear(64, 8)}),
            "tied": nn.Linear(8, 8),
            "embedding": nn.Embedding(8, 8),
            "own": Own(64, 8),
            "odd": nn.Linear(7, 9),
            "complex": nn.Linear(64, 8, dtype=torch.complex64),
        }
    )
    net["tied"].weight = net["embedding"].weight
    Quantized("nf4", ignore_modules={"lm_head"}).convert_module(net)
    changed = {name for name, p in net.named_parameters() if type(p) is not nn.Parameter}
    assert changed == {"model.body.weight"}
    assert net["tied"].weight is net["embedding"].weight


def test_what_trains_stays_when_a_module_is_set_up_twice():
    fabric, module = L.Fabric(accelerator="cpu", plugins=[Quantized("int8")]), Tuned()
    fabric.setup(module)
    model = fabric.setup(module)
    assert type(module.head.weight) is nn.Parameter
    fabric.backward(model(batches(1)[0]).sum())
    assert module.before.weight.grad.abs().sum() > 0


def test_what_torchao_refuses_is_an_error_of_ours():
    with pytest.raises(MisconfigurationException, match=r"cannot turn weights of torch.float64 on cpu into 'int8'"):
        Quantized("int8").convert_module(nn.Linear(4, 4, dtype=torch.float64))


def test_a_module_without_linear_layers_is_told():
    with pytest.warns(UserWarning, match="found no linear layer to quantise"):
        Quantized("int8").convert_module(nn.Conv2d(1, 1, 1))


def test_the_rest_of_the_module_and_its_batches_take_a_dtype(quiet):
    module = Tuned()
    trainer = quiet(accelerator="cpu", plugins=[Quantized("int8", dtype=torch.bfloat16)])
    outputs = trainer.predict(module, batches())
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert outputs[0].dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


def test_fabric_saves_and_loads_plain_weights(tmp_path):
    fabric = L.Fabric(accelerator="cpu", plugins=[Quantized("nf4")])
    torch.manual_seed(0)
    net, x = nn.Linear(64, 64), torch.randn(2, 64)
    model = fabric.setup(net)
    given = model(x)
    fabric.save(tmp_path / "model.ckpt", {"model": model})
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)["model"]
    plain = nn.Linear(64, 64)
    plain.load_state_dict(saved)
    torch.testing.assert_close(plain(x), given)

    nn.init.zeros_(plain.weight)
    net.load_state_dict(plain.state_dict())
    assert not torch.equal(model(x), given)
    fabric.load(tmp_path / "model.ckpt", {"model": model})
    assert torch.equal(model(x), given)
    assert type(net.weight) is not nn.Parameter

    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        net.load_state_dict(nn.Linear(32, 64).state_dict())
    with pytest.raises(MisconfigurationException, match="Quantised weights do not train"):
        fabric.backward(model(x.requires_grad_()).sum())


@pytest.mark.dist
def test_two_processes_train_around_frozen_weights(quiet):
    module = Tuned()
    before = module.head.weight.detach().clone()
    of(quiet, "nf4", devices=2).fit(module, torch.utils.data.DataLoader(torch.randn(16, 32), batch_size=4))
    assert not torch.equal(module.head.weight, before)
    assert {type(p) for p in module.parameters()} == {nn.Parameter}


def test_wrong_arguments_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="int8, int8-dynamic, float8, nf4; got 'int3'"):
        Quantized("int3")
    with pytest.raises(ValueError, match="`dtype` must be"):
        Quantized("int8", dtype=torch.int8)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"leyden-core\[quant\]\""):
        Quantized("int8")
