"""A device of torch_xla trains; with PJRT_DEVICE=CPU that is the CPU, by the way that a TPU takes."""

import importlib

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import MisconfigurationValueError, NotYetSupported

pytestmark = pytest.mark.xla


@pytest.fixture(scope="module", autouse=True)
def _torch_xla():
    """It sets variables of the environment once, when it is imported."""
    importlib.import_module("torch_xla")


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.places = set()

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.net(batch[0]).float(), batch[1].float())
        self.places.add((batch[0].device.type, batch[0].dtype, self.device.type))
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", F.mse_loss(self.net(batch[0]).float(), batch[1].float()))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def loader():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8)


def by_hand():
    module = Regression()
    optimizer = module.configure_optimizers()
    for _ in range(2):
        for x, y in loader():
            optimizer.zero_grad()
            F.mse_loss(module.net(x), y).backward()
            optimizer.step()
    return module.net.state_dict()


def test_it_trains_to_the_weights_of_the_cpu_saves_and_goes_on(quiet, tmp_path):
    module = Regression()
    saver = L.callbacks.ModelCheckpoint(dirpath=tmp_path)
    flags = {"accelerator": "tpu", "devices": 1, "callbacks": [saver], "enable_checkpointing": None}
    quiet(max_epochs=1, **flags).fit(module, loader(), loader())
    assert module.places == {("xla", torch.float32, "xla")}
    assert module.device.type == "cpu"
    state = torch.load(saver.best_model_path, weights_only=True, map_location="cpu")
    assert {value.device.type for value in state["state_dict"].values()} == {"cpu"}
    again = Regression()
    quiet(max_epochs=2, **flags).fit(again, loader(), loader(), ckpt_path=saver.best_model_path)
    for name, value in by_hand().items():
        torch.testing.assert_close(again.net.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_true_formats_train(quiet, precision):
    module = Regression()
    trainer = quiet(accelerator="tpu", devices=1, max_epochs=3, precision=precision)
    trainer.fit(module, loader(), loader())
    assert module.places == {("xla", {"bf16-true": torch.bfloat16, "16-true": torch.float16}[precision], "xla")}
    assert trainer.callback_metrics["loss_epoch"] < 4


def test_a_loop_of_ones_own_trains():
    fabric = L.Fabric(accelerator="tpu", devices=1)
    module = Regression().net
    model, optimizer = fabric.setup(module, torch.optim.AdamW(module.parameters(), lr=0.01))
    for _ in range(2):
        for x, y in fabric.setup_dataloaders(loader()):
            optimizer.zero_grad()
            fabric.backward(F.mse_loss(model(x), y))
            optimizer.step()
    for name, value in by_hand().items():
        torch.testing.assert_close(model.state_dict()[name].cpu(), value, rtol=1e-5, atol=1e-6)


def test_what_it_can_not_do_is_refused(quiet, monkeypatch):
    with pytest.raises(MisconfigurationValueError, match="not supported on XLA"):
        quiet(accelerator="tpu", devices=1, precision="bf16-mixed")
    monkeypatch.setenv("CPU_NUM_DEVICES", "2")
    with pytest.raises(NotYetSupported, match="Several XLA devices"):
        quiet(accelerator="tpu", devices=2)
