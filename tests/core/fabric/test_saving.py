"""What Fabric saves it loads again, and a pass over data goes on where it was cut."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

import leyden.core as L
from leyden.core.errors import CheckpointError, DamagedCheckpointError, NotYetSupported, UnsafeCheckpointError

from .loops import data, net


@pytest.fixture
def fabric():
    """One process on the CPU."""
    return L.Fabric(accelerator="cpu", devices=1)


def state_of(fabric):
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.01))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
    loader = fabric.setup_dataloaders(DataLoader(data(), 8, shuffle=True))
    return {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader, "epoch": 0, "steps": 0}


def train(fabric, state, stop=None, path=None):
    """Train for two epochs of six steps, or until a number of steps after which the state is saved."""
    for epoch in range(state["epoch"], 2):
        state["epoch"] = epoch
        for x, y in state["loader"]:
            state["optimizer"].zero_grad()
            fabric.backward(F.mse_loss(state["model"](x), y))
            state["optimizer"].step()
            state["schedule"].step()
            state["steps"] += 1
            if state["steps"] == stop:
                fabric.save(path, state)
                return state
    return state


@pytest.mark.parametrize("stop", [7, 9, 12])
def test_a_loop_that_was_cut_ends_with_the_same_bits(fabric, stop, tmp_path):
    torch.manual_seed(0)
    whole = train(fabric, state_of(fabric))
    torch.manual_seed(0)
    train(fabric, state_of(fabric), stop, tmp_path / "cut.ckpt")
    again = state_of(fabric)
    assert fabric.load(tmp_path / "cut.ckpt", again) == {}
    assert (again["epoch"], again["steps"]) == (1, stop)
    train(fabric, again)
    assert again["steps"] == 12
    assert again["schedule"].state_dict() == whole["schedule"].state_dict()
    second = again["model"].state_dict()
    assert all(torch.equal(value, second[name]) for name, value in whole["model"].state_dict().items())


def test_the_rest_of_a_pass_is_the_rest_of_it(fabric, tmp_path):
    torch.manual_seed(1)
    loader = fabric.setup_dataloaders(DataLoader(range(12), 2, shuffle=True, num_workers=1))
    seen = []
    for batch in loader:
        seen.append(batch.tolist())
        if len(seen) == 2:
            fabric.save(tmp_path / "a.ckpt", {"loader": loader})
    again = fabric.setup_dataloaders(DataLoader(range(12), 2, shuffle=True))
    fabric.load(tmp_path / "a.ckpt", {"loader": again})
    assert [batch.tolist() for batch in again] == seen[2:]
    assert len(list(again)) == 6


def test_a_filter_leaves_entries_out(fabric, tmp_path):
    model = fabric.setup(net())
    fabric.save(tmp_path / "a.ckpt", {"model": model, "step": 3}, filter={"model": lambda name, _: "bias" in name})
    assert list(torch.load(tmp_path / "a.ckpt")["model"]) == ["0.bias", "3.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        fabric.load(tmp_path / "a.ckpt", {"model": model})
    assert fabric.load(tmp_path / "a.ckpt", {"model": model}, strict=False) == {"step": 3}
    for wrong, kind in (([], TypeError), ({"other": print}, ValueError), ({"model": 1}, TypeError)):
        with pytest.raises(kind, match=r"[Ff]ilter"):
            fabric.save(tmp_path / "b.ckpt", {"model": model}, filter=wrong)
    assert not (tmp_path / "b.ckpt").exists()


def test_values_are_replaced_and_missing_ones_are_told_before_anything_is_loaded(fabric, tmp_path):
    model = fabric.setup(net())
    fabric.save(tmp_path / "a.ckpt", {"model": model, "step": 3, "more": [1]})
    torch.nn.init.zeros_(model.module[0].weight)
    state = {"model": model, "step": 0, "lost": 1}
    with pytest.raises(KeyError, match="contains a key 'lost' that does not exist"):
        fabric.load(tmp_path / "a.ckpt", state)
    assert not model.module[0].weight.any()
    assert fabric.load(tmp_path / "a.ckpt", state, strict=False) == {"more": [1]}
    assert (state["step"], state["lost"]) == (3, 1)
    assert model.module[0].weight.any()


def test_raw_states_are_loaded(fabric, tmp_path):
    source = net()
    torch.nn.init.ones_(source[0].weight)
    torch.save(source.state_dict(), tmp_path / "raw.pt")
    model = fabric.setup(net())
    fabric.load_raw(tmp_path / "raw.pt", model)
    assert bool((model.module[0].weight == 1).all())
    plain = net()
    fabric.load_raw(tmp_path / "raw.pt", plain)
    assert torch.equal(plain[0].weight, source[0].weight)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other = fabric.setup_optimizers(torch.optim.SGD(plain.parameters(), lr=0.1))
    fabric.load_raw(tmp_path / "optimizer.pt", other)
    assert other.param_groups[0]["lr"] == 0.5


def test_files_are_as_safe_as_the_trainers(fabric, tmp_path):
    model, path = fabric.setup(net()), tmp_path / "a.ckpt"
    fabric.save(path, {"model": model})
    whole = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\['odd'\] is a .*object"):
        fabric.save(path, {"model": model, "odd": object()})
    assert path.read_bytes() == whole
    with pytest.raises(NotYetSupported, match="URL"):
        fabric.save("s3://bucket/a.ckpt", {"model": model})
    with pytest.raises(FileNotFoundError, match="not found"):
        fabric.load(tmp_path / "none.ckpt")
    position = whole.index(b"data/0") + 200
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
    with pytest.raises(DamagedCheckpointError, match="checksum"):
        fabric.load(path, {"model": model})
    torch.save({"odd": DataLoader(range(2))}, path)
    with pytest.raises(UnsafeCheckpointError, match="run code"):
        fabric.load(path)
    assert isinstance(fabric.load(path, weights_only=False)["odd"], DataLoader)


def test_weights_travel_between_fabric_and_trainer(fabric, tmp_path):
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, batch_idx):
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = L.Trainer(max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    module = Module()
    trainer.fit(module, DataLoader(torch.ones(4, 2)))
    trainer.save_checkpoint(tmp_path / "trainer.ckpt")
    other = Module()
    model = fabric.setup(other)
    rest = fabric.load(tmp_path / "trainer.ckpt", {"state_dict": model})
    assert torch.equal(other.layer.weight, module.layer.weight)
    assert rest["global_step"] == 4
