"""Training in 8 bits: what takes part, how exact it is, and that nothing of it reaches a file."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.errors import MisconfigurationException, MissingExtraError
from leyden.core.precision import Float8Precision, MixedPrecision

RECIPES = ("tensorwise", "rowwise", "rowwise_with_gw_hp")


class Regression(L.LightningModule):
    """Learns a fixed function of 32 numbers; its last layer is too narrow for 8 bits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16), nn.Linear(16, 1))
        self.kinds, self.losses = [], []

    def loss(self, batch):
        return (self.net(batch) - batch[:, :4].sum(1, keepdim=True)).square().mean()

    def training_step(self, batch, batch_idx):
        self.kinds = [type(layer).__name__ for layer in self.net]
        loss = self.loss(batch)
        self.losses.append(float(loss.detach()))
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self.net(batch)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def batches(n=8, size=5):
    # five samples: the products that give the gradients of weights have no multiple of 16 either
    return list(torch.randn(n, size, 32, generator=torch.Generator().manual_seed(1)))


def plugged(recipe, **options):
    return {"plugins": [Float8Precision(recipe, **options)]}


@pytest.mark.parametrize("flags", [{"precision": "fp8"}, *({"recipe": recipe} for recipe in RECIPES)])
def test_a_training_lowers_its_loss_and_leaves_a_plain_module(quiet, flags):
    flags = plugged(flags["recipe"]) if "recipe" in flags else flags
    module = Regression()
    trainer = quiet(accelerator="cpu", max_epochs=30, **flags)
    trainer.fit(module, batches())
    assert trainer.precision == "fp8"
    assert module.kinds == ["Float8Linear", "GELU", "Float8Linear", "Linear"]
    assert sum(module.losses[-8:]) < 0.1 * sum(module.losses[:8])
    assert [type(layer) for layer in module.net] == [nn.Linear, nn.GELU, nn.Linear, nn.Linear]
    assert vars(module.net[0]).keys() == vars(nn.Linear(1, 1)).keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_are_those_of_32_bits_up_to_the_rounding(recipe):
    # each factor of a product is rounded by at most 1/16 (3 bits of fraction), in the mean by a third of that
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32)), torch.randn(24, 64)

    def gradients(net, precision=None):
        net = copy.deepcopy(net)
        with precision.forward_context() if precision else torch.enable_grad():
            y = (precision.convert_module(net) if precision else net)(x)
        y.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    true = gradients(net)
    error = (gradients(net, Float8Precision(recipe, device="cpu")) - true).norm() / true.norm()
    of_16_bits = (gradients(net, MixedPrecision("bf16-mixed", "cpu")) - true).norm() / true.norm()
    assert 4 * of_16_bits < error < 1 / 8


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_evaluates_in_inference_mode(quiet, recipe):
    module = Regression()
    plain = [module.net(batch) for batch in batches()]
    trainer = quiet(accelerator="cpu", **plugged(recipe))
    assert trainer.test(module, batches(), verbose=False)[0]["test"] > 0
    given = trainer.predict(module, batches())
    true, given = torch.cat(plain), torch.cat(given).float()
    assert 0 < (given - true).norm() / true.norm() < 1 / 8


def test_a_checkpoint_is_that_of_the_plain_model_and_a_run_goes_on_from_it(quiet, tmp_path):
    def fit(epochs, folder, path=None):
        module = Regression()
        saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path / folder, save_last=True)
        trainer = quiet(
            accelerator="cpu", max_epochs=epochs, precision="fp8", callbacks=[saver], enable_checkpointing=None
        )
        trainer.fit(module, batches(), ckpt_path=path)
        return module, saver.last_model_path

    whole, path = fit(4, "whole")
    saved = torch.load(path, weights_only=True)["state_dict"]
    plain = Regression()
    assert {name: (type(v), v.dtype) for name, v in saved.items()} == {
        name: (type(v), v.dtype) for name, v in plain.state_dict().items()
    }
    plain.load_state_dict(saved)
    assert torch.equal(plain.net[0].weight, whole.net[0].weight)

    again, _ = fit(4, "parts", fit(2, "parts")[1])
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_layers_stay_the_same_objects_with_their_hooks(quiet):
    module, seen = Regression(), []
    first, parameters = module.net[0], list(module.parameters())
    first.register_forward_hook(lambda layer, args, output: seen.append(type(layer).__name__))
    quiet(accelerator="cpu", precision="fp8", max_steps=1).fit(module, batches())
    assert seen == ["Float8Linear"]
    assert module.net[0] is first
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))


def test_what_takes_part_can_be_chosen_and_a_layer_with_a_way_of_its_own_does_not():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    net = nn.ModuleDict(
        {
            "head": nn.Linear(16, 16),
            "body": nn.Linear(16, 16),
            "own": Doubled(16, 16),
            "computed": nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
        }
    )
    kinds = {name: type(layer) for name, layer in net.items()}
    Float8Precision(module_filter_fn=lambda layer, name: name != "head", device="cpu").convert_module(net)
    assert type(net["body"]).__name__ == "Float8Linear"
    assert all(type(net[name]) is kind for name, kind in kinds.items() if name != "body")


def test_a_module_of_which_nothing_takes_part_is_told(quiet, tiny, numbers):
    with pytest.warns(UserWarning, match="multiples of 16"):
        quiet(accelerator="cpu", precision="fp8").fit(tiny(), numbers())


@pytest.mark.parametrize("flags", [{"precision": "fp8"}, {"plugins": [Float8Precision("rowwise")]}])
def test_a_device_that_refuses_is_an_error_before_the_first_step(quiet, monkeypatch, flags):
    def refuse(*args, **kwargs):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    module = Regression()
    with pytest.raises(MisconfigurationException, match=r"does not run on this device \(cpu\).*bf16-mixed"):
        quiet(accelerator="cpu", **flags).fit(module, batches())
    assert module.losses == []
    assert type(module.net[0]) is nn.Linear


def test_fabric_trains_in_8_bits():
    fabric = L.Fabric(accelerator="cpu", precision="fp8")
    torch.manual_seed(0)
    net = nn.Linear(16, 16)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.5))
    x, losses = torch.randn(8, 16), []
    for _ in range(20):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert type(net).__name__ == "Float8Linear"
    assert losses[-1] < 0.5 * losses[0]


def test_a_recipe_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="tensorwise, rowwise, rowwise_with_gw_hp; got 'columnwise'"):
        Float8Precision("columnwise")


def test_without_torchao_the_way_to_it_is_named(quiet, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"leyden-core\[quant\]\""):
        quiet(accelerator="cpu", precision="fp8")
    with pytest.raises(MissingExtraError, match="transformer_engine"):
        quiet(accelerator="cpu", precision="transformer-engine")


def test_the_package_does_not_import_torchao():
    code = "import sys, leyden.core.plugins as p; p.Float8Precision(), p.Quantized(); print('torchao' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
