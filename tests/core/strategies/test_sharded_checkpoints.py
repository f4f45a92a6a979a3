"""Checkpoints that are folders, which two processes write together; one process and four read them.

The file is also the script of the processes: `test_sharded_checkpoints.py FOLDER PROCESSES CASE`.
"""

import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

import leyden.core as L
from leyden.core.checkpoint import manifest, sharded
from leyden.core.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    DamagedCheckpointError,
    UnsafeCheckpointError,
)
from leyden.core.strategies import FSDPStrategy


class Net(nn.Module):
    """Tied ends, a frozen layer, a buffer, and sizes that no number of processes divides."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(7, 7, bias=False)
        self.frozen = nn.Linear(7, 5).requires_grad_(False)
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 7)])
        self.end = nn.Linear(7, 7)
        self.end.weight = self.start.weight
        self.last = nn.Linear(7, 1)
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x):
        x = self.frozen(self.start(x))
        for block in self.blocks:
            x = torch.relu(block(x))
        if self.training:
            self.count += 1
        return self.last(self.end(x))


class Counter:
    def __init__(self):
        self.steps = 0

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def data(first, last):
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randn(4, size, generator=generator) for size in (7, 1)) for _ in range(6)][first:last]


def made(fabric, seed):
    torch.manual_seed(seed)
    module = Net()
    if isinstance(fabric.strategy, FSDPStrategy):
        module = fabric.setup_module(module)
        optimizer = fabric.setup_optimizers(adamw(module))
    else:
        module, optimizer = fabric.setup(module, adamw(module))
    return {"model": module, "optimizer": optimizer, "counter": Counter(), "step": 0, "note": {"lr": (0.1, None)}}


def adamw(module):
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def train(fabric, state, first, last):
    rank, world = fabric.global_rank, fabric.world_size
    for x, y in data(first, last):
        loss = nn.functional.mse_loss(state["model"](x[rank::world]), y[rank::world])
        fabric.backward(loss)
        state["optimizer"].step()
        state["optimizer"].zero_grad()
        state["counter"].steps += 1
        state["step"] += 1


def whole(state):
    """Every process calls it, because shards are gathered."""
    return {
        "model": {
            name: value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
            for name, value in state["model"].state_dict().items()
        },
        "optimizer": deepcopy(state["optimizer"].state_dict()),
        "counter": state["counter"].steps,
        "step": state["step"],
    }


# -- what the processes run --------------------------------------------------------------------------------------------


def write(fabric, folder):
    """Save after three steps and go on; a second run goes on from the folder."""
    found = {}
    state = made(fabric, seed=1)
    train(fabric, state, 0, 3)
    fabric.save(folder / "at3.ckpt", state)
    found["at3"] = whole(state)
    train(fabric, state, 3, 6)
    found["at6"] = whole(state)
    again = made(fabric, seed=2)
    found["beside"] = fabric.load(folder / "at3.ckpt", again)
    found["loaded"] = whole(again)
    train(fabric, again, 3, 6)
    found["resumed"] = whole(again)
    fabric.save(folder / "again.ckpt", again)
    fabric.save(folder / "again.ckpt", {**state, "step": 60}, filter={"model": lambda name, value: "last" in name})
    return found


def read(fabric, folder):
    state = made(fabric, seed=5)
    fabric.load(folder / "at3.ckpt", state)
    found = {"loaded": whole(state)}
    fabric.save(folder / f"from{fabric.world_size}.ckpt", state)
    return found


def fail(fabric, folder):
    """A disk that is full for the second process only."""
    state = made(fabric, seed=1)
    fabric.save(folder / "kept.ckpt", state)
    train(fabric, state, 0, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    if fabric.global_rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    said = refused(lambda: fabric.save(folder / "kept.ckpt", state), CheckpointWriteError)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    unplain = refused(lambda: fabric.save(folder / "kept.ckpt", {**state, "note": fabric}), CheckpointError)
    there = sorted(path.name for path in folder.iterdir())
    fabric.barrier()
    if fabric.global_rank == 1:
        name = next((folder / "kept.ckpt").glob("__1_*"))
        name.write_bytes(name.read_bytes()[:-1])
    fabric.barrier()
    damaged = refused(lambda: fabric.load(folder / "kept.ckpt", state), DamagedCheckpointError)
    return {"said": fabric.strategy.gather_objects([said, unplain, damaged]), "there": there}


def refused(action, kind):
    try:
        action()
    except kind as error:
        return str(error)
    return None


CASES = {"write": write, "read": read, "fail": fail}


def main(fabric, folder, processes, case):
    found = CASES[case](fabric, folder)
    if fabric.is_global_zero:
        torch.save(found, folder / f"{case}{processes}.pt")
    fabric.barrier()


# -- what came out of it -----------------------------------------------------------------------------------------------


def run(folder, processes, case):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", __file__, str(folder), str(processes), case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-6000:]
    return torch.load(folder / f"{case}{processes}.pt", weights_only=True)


def alike(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def written(folder):
    return run(folder, 2, "write")


@pytest.fixture
def copy(written, folder, tmp_path):
    """A folder of one's own, to be harmed."""
    shutil.copytree(folder / "at3.ckpt", tmp_path / "at3.ckpt")
    return tmp_path / "at3.ckpt"


def test_two_processes_go_on_from_their_folder_to_the_same_bits(written):
    alike(written["loaded"], written["at3"])
    alike(written["resumed"], written["at6"])
    assert written["beside"] == {}
    assert (written["at3"]["counter"], written["resumed"]["step"]) == (3, 6)


def test_each_process_writes_its_own_part(written, folder):
    names = {path.name for path in (folder / "at3.ckpt").iterdir()}
    assert names == {"__0_0.distcp", "__1_0.distcp", ".metadata", "rest.ckpt", "leyden.json"}
    assert (folder / "at3.ckpt" / "rest.ckpt").stat().st_size < 6000
    assert manifest.read_record(folder / "at3.ckpt") == {"kind": "fabric"}
    manifest.verify(folder / "at3.ckpt")
    assert not list(folder.glob(".*"))


def test_a_folder_is_read_as_a_file_is(written, folder):
    state = sharded.load(folder / "at3.ckpt")
    assert list(state) == ["model", "optimizer", "counter", "step", "note"]
    alike(dict(state["model"]), written["at3"]["model"])
    alike(state["optimizer"], written["at3"]["optimizer"])
    assert list(state["model"]) == list(Net().state_dict())
    assert (state["counter"], state["step"], state["note"]) == ({"steps": 3}, 3, {"lr": (0.1, None)})
    assert state["model"]["start.weight"].data_ptr() == state["model"]["end.weight"].data_ptr()


def test_one_process_goes_on_from_it(written, folder):
    fabric = L.Fabric(accelerator="cpu", devices=1)
    state = made(fabric, seed=8)
    fabric.load(folder / "at3.ckpt", state)
    alike(whole(state), written["at3"])
    train(fabric, state, 3, 6)
    # gradients of the halves of a batch are added up in another order
    torch.testing.assert_close(whole(state)["model"], written["at6"]["model"], rtol=1e-5, atol=1e-6)


def test_four_processes_and_one_load_what_two_saved(written, folder):
    for processes in (1, 4):
        alike(run(folder, processes, "read")["loaded"], written["at3"])
        again = sharded.load(folder / f"from{processes}.ckpt")
        alike(dict(again["model"]), written["at3"]["model"])
        alike(again["optimizer"], written["at3"]["optimizer"])


def test_what_stands_there_is_replaced(written, folder):
    state = sharded.load(folder / "again.ckpt")
    assert state["step"] == 60
    assert list(state["model"]) == ["last.weight", "last.bias"]
    alike(dict(state["model"]), {name: written["at6"]["model"][name] for name in state["model"]})


def test_a_full_disk_on_one_process_fails_on_all_and_costs_nothing(tmp_path):
    found = run(tmp_path, 2, "fail")
    (first, unplain, damaged), (second, of_first, damaged_too) = found["said"]
    assert "process 1 could not write its shards" in first
    assert "process 1 could not write its shards" in second
    assert "Fabric" in unplain
    assert "process 0: checkpoint['note']" in of_first
    assert found["there"] == ["kept.ckpt"]
    for said in (damaged, damaged_too):
        assert "__1_0.distcp has " in said
        assert "bytes, and had " in said


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata", "rest.ckpt"])
def test_damage_names_the_file(copy, name):
    path = copy / name
    good = path.read_bytes()
    for offset in (0, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 16]) + good[offset + 1 :])
        for check in (manifest.verify, sharded.load):
            with pytest.raises(DamagedCheckpointError, match=f"{name} fails its checksum"):
                check(copy)
    path.write_bytes(good[:-1])
    with pytest.raises(DamagedCheckpointError, match=f"{name} has {len(good) - 1} bytes, and had {len(good)}"):
        sharded.load(copy)
    path.unlink()
    with pytest.raises(DamagedCheckpointError, match=f"{name} is missing"):
        sharded.load(copy)


def test_a_manifest_that_is_damaged_or_missing_is_told(copy):
    path = copy / "leyden.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"fabric"', b'"fabrik"'))
    for check in (manifest.read_record, manifest.verify, sharded.load):
        with pytest.raises(DamagedCheckpointError, match=r"leyden\.json fails its checksum"):
            check(copy)
    path.write_bytes(good[:-5])
    with pytest.raises(DamagedCheckpointError, match=r"leyden\.json can not be read"):
        manifest.read_record(copy)
    path.unlink()
    for check in (manifest.read_record, manifest.verify, sharded.load):
        with pytest.raises(DamagedCheckpointError, match=r"it has no leyden\.json, which is written last"):
            check(copy)
    with pytest.raises(CheckpointNotFoundError, match="Checkpoint file not found"):
        sharded.load(copy / "none.ckpt")


def test_the_record_of_a_folder_can_be_changed(copy):
    manifest.restamp(copy, finished=True)
    assert manifest.read_record(copy) == {"kind": "fabric", "finished": True}
    manifest.verify(copy)


# -- replacing ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from leyden.core.checkpoint import sharded
from leyden.core.strategies.strategy import Strategy
left = int(sys.argv[2])
def dying(event, args):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(dying)
sharded.save(Strategy(), Path(sys.argv[1]), {"which": "new"}, {"step": 2})
"""


def test_a_kill_at_any_moment_leaves_a_whole_folder(tmp_path):
    path = tmp_path / "a.ckpt"
    which = []
    for moment in range(100):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        sharded.save(L.strategies.Strategy(), path, {"which": "old"}, {"step": 1})
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(moment)], capture_output=True, timeout=60)
        manifest.verify(path)
        which.append(sharded.load(path)["which"])
        assert manifest.read_record(path)["step"] == {"old": 1, "new": 2}[which[-1]]
        assert manifest.listed(tmp_path, ".ckpt") == [path]
        manifest.sweep(tmp_path)
        assert sharded.load(path)["which"] == which[-1]
        sharded.save(L.strategies.Strategy(), path, {"which": "later"}, {})
        assert sharded.load(path)["which"] == "later"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not list(tmp_path.glob(".*"))
    assert which == sorted(which, reverse=True)
    assert {"old", "new"} == set(which)


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("all of it")
    with pytest.raises(CheckpointError, match="is a folder that is no checkpoint"):
        sharded.save(L.strategies.Strategy(), tmp_path / "work", {}, {})
    assert (tmp_path / "work" / "thesis.txt").read_text() == "all of it"
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_folder_takes_the_place_of_a_file_and_is_deleted_whole(tmp_path):
    path = tmp_path / "a.ckpt"
    L.Fabric(accelerator="cpu", devices=1).save(path, {"step": 1})
    sharded.save(L.strategies.Strategy(), path, {"step": 2}, {})
    assert sharded.load(path) == {"step": 2}
    manifest.delete(path)
    assert list(tmp_path.iterdir()) == []


# -- safety ------------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def remade(folder):
    """Make the manifest fit what stands in a folder, as who sends a folder can."""
    files = {path.name: manifest.measured(path) for path in folder.iterdir() if path.name != "leyden.json"}
    manifest.write(folder, {}, files)


def test_metadata_that_needs_code_is_refused(copy, tmp_path):
    (copy / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    remade(copy)
    manifest.verify(copy)
    for trust in (False, True):
        with pytest.raises(UnsafeCheckpointError, match=r"posix\.mkdir.*nothing was run"):
            sharded.load(copy, trust=trust)
    fabric = L.Fabric(accelerator="cpu", devices=1)
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        fabric.load(copy, made(fabric, seed=1))
    assert not (tmp_path / "ran").exists()


def test_metadata_that_names_another_place_is_refused(copy, tmp_path):
    known = pickle.loads((copy / ".metadata").read_bytes())
    for outside in (str(tmp_path / "secret.pt"), "../secret.pt", ".."):
        for place in known.storage_data.values():
            place.relative_path = outside
        (copy / ".metadata").write_bytes(pickle.dumps(known))
        remade(copy)
        with pytest.raises(UnsafeCheckpointError, match="names a file outside of its folder"):
            sharded.load(copy)
    manifest.write(copy, {}, {"../a": {"size": 1, "crc32": 1}})
    with pytest.raises(UnsafeCheckpointError, match="names a file outside of its folder"):
        manifest.verify(copy)


def test_a_shard_that_needs_code_is_refused(copy, tmp_path):
    known = pickle.loads((copy / ".metadata").read_bytes())
    torch.save(Evil(tmp_path / "ran"), copy / "__0_0.distcp")
    for place in known.storage_data.values():
        place.relative_path, place.offset = "__0_0.distcp", 0
        place.length = (copy / "__0_0.distcp").stat().st_size
    (copy / ".metadata").write_bytes(pickle.dumps(known))
    remade(copy)
    with pytest.raises(UnsafeCheckpointError, match=r"mkdir.*nothing was run"):
        sharded.load(copy)
    assert not (tmp_path / "ran").exists()


def test_values_beside_shards_run_nothing(tmp_path):
    from leyden.core.strategies.fsdp_state import load_sharded, save_sharded

    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.param_groups[0]["note"] = Evil(tmp_path / "ran")
    save_sharded(tmp_path / "shards", module, [optimizer])
    optimizer.param_groups[0]["note"] = None
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        load_sharded(tmp_path / "shards", module, [optimizer])
    assert not (tmp_path / "ran").exists()


def test_metadata_of_other_things_is_damage(copy):
    for wrong in (b"", b"text", pickle.dumps({"a": 1}), pickle.dumps(3)):
        (copy / ".metadata").write_bytes(wrong)
        remade(copy)
        with pytest.raises(DamagedCheckpointError, match=r"\.metadata"):
            sharded.load(copy)
    shutil.copy(copy / "leyden.json", copy / "rest.ckpt")
    remade(copy)
    with pytest.raises(DamagedCheckpointError, match=r"rest\.ckpt"):
        sharded.load(copy)


def test_the_package_is_imported_without_what_shards_need():
    code = "import sys, leyden.core as L; L.Fabric; L.Trainer; assert 'torch.distributed.checkpoint' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


if __name__ == "__main__":
    folder, processes, case = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    shards = FSDPStrategy(state_dict_type="sharded", auto_wrap_policy={nn.Linear})
    L.Fabric(accelerator="cpu", devices=processes, strategy=shards).launch(main, folder, processes, case)
