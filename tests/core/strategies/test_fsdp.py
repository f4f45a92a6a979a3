"""FSDP over two processes, beside one process with the same batches.

The file is also the script of the two processes: they run every case once, and the tests look at what came out. Over
torch 2.15 on a CPU the weights of both differ by 3e-8 after 3 steps.
"""

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from leyden.core.precision.fsdp import FSDPPrecision
from leyden.core.precision.mixed import MixedPrecision
from leyden.core.strategies.fsdp import FSDPStrategy

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 8)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


class Net(nn.Module):
    """Tied ends, a frozen layer, repeated blocks, a buffer; the step calls the parts, and not the whole."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(8, 8, bias=False)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
        self.end = nn.Linear(8, 8)
        self.end.weight = self.start.weight
        self.register_buffer("mask", torch.tensor([True] * 8))

    def reset_parameters(self):
        self.mask.fill_(True)

    def forward(self, x):
        return self.training_step((x, torch.zeros_like(x)))

    def training_step(self, batch):
        x, y = batch
        x = self.frozen(self.start(x))
        for block in self.blocks:
            x = block(x)
        return nn.functional.mse_loss(self.end(x) * self.mask, y)

    def validation_step(self, batch):
        return self.training_step(batch)


class Place:
    """Who a process is."""

    creates_processes_externally = True

    def __init__(self, rank):
        self.global_rank = self.local_rank = lambda: rank
        self.node_rank = lambda: 0


def data(steps=3):
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randn(4, 8, generator=generator) for _ in "xy") for _ in range(steps)]


def share(batch):
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return tuple(part[rank::world] for part in batch)


def net(seed=0, kind=Net):
    torch.manual_seed(seed)
    return kind()


def sharded(module, **options):
    strategy = FSDPStrategy(
        parallel_devices=[torch.device("cpu")] * 2, cluster_environment=Place(dist.get_rank()), **options
    )
    strategy.setup_environment()
    strategy.setup_module(module)
    return strategy


def adamw(module):
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)


def train(strategy, optimizer, batches, clip=0.1, algorithm="norm"):
    strategy.setup_training([optimizer])
    step = strategy.precision_plugin.around(strategy.step_method("training_step"))
    for batch in batches:
        step(share(batch)).backward()
        strategy.clip_gradients(optimizer.param_groups[0]["params"], clip, algorithm)
        optimizer.step()
        optimizer.zero_grad()
    return strategy.model_state_dict()


def train_alone(module, batches, clip=0.1, algorithm="norm", state=None):
    optimizer = adamw(module)
    if state:
        optimizer.load_state_dict(state)
    by = nn.utils.clip_grad_norm_ if algorithm == "norm" else nn.utils.clip_grad_value_
    for batch in batches:
        module.training_step(batch).backward()
        by(module.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return module.state_dict(), optimizer.state_dict()


# -- what the two processes run ----------------------------------------------------------------------------------------


def weights(folder, algorithm="norm", clip=0.1, **options):
    strategy = sharded(net(seed=dist.get_rank()), **options)
    return train(strategy, adamw(strategy.module), data(), clip, algorithm)


def window(folder, cut=False, **options):
    """One window of two batches; a cut one has no batch that closes it."""
    strategy = sharded(net(), **options)
    optimizer = adamw(strategy.module)
    step = strategy.step_method("training_step")
    first, second = data(2)
    with strategy.accumulating():
        step(share(first)).backward()
        if cut:
            step(share(second)).backward()
    strategy.average_gradients() if cut else step(share(second)).backward()
    optimizer.step()
    return strategy.model_state_dict()


def manual(folder):
    """A backward pass inside of the step, from a loss that no unit gave back."""
    strategy = sharded(net(kind=Manual))
    optimizer = strategy.module.optimizer = adamw(strategy.module)
    strategy.module.backward = lambda loss: (strategy.before_backward(loss), loss.backward())
    strategy.step_method("training_step")(share(data(1)[0]))
    optimizer.step()
    return strategy.model_state_dict()


class Manual(Net):
    def training_step(self, batch):
        loss = nn.functional.mse_loss(self.end(self.start(batch[0])), batch[1])
        self.backward(loss)


def resumed(folder):
    """States as one process has them, taken over by two, and given back after two more steps."""
    strategy = sharded(net(seed=5))
    given = torch.load(folder / "alone.pt", weights_only=True)
    strategy.load_model_state_dict(given["model"])
    optimizer = adamw(strategy.module)
    strategy.load_optimizer_state_dict(optimizer, given["optimizer"])
    back = copy.deepcopy((strategy.model_state_dict(), strategy.optimizer_state_dict(optimizer)))
    train(strategy, optimizer, data())
    return *back, strategy.model_state_dict(), strategy.optimizer_state_dict(optimizer)


def in_shards(folder):
    strategy = sharded(net())
    optimizer = adamw(strategy.module)
    train(strategy, optimizer, data())
    strategy.save_sharded(folder / "shards", [optimizer])
    again = sharded(net(seed=9))
    other = adamw(again.module)
    again.load_sharded(folder / "shards", [other])
    return again.model_state_dict(), again.optimizer_state_dict(other), strategy.model_state_dict()


def from_meta(folder):
    with torch.device("meta"):
        module = net()
    strategy = sharded(module, auto_wrap_policy={Block})
    tied = module.start.weight is module.end.weight
    state = train(strategy, adamw(module), data())
    return tied, state


def own_shards_from_meta(folder):
    from torch.distributed.fsdp import fully_shard

    with torch.device("meta"):
        module = net()
    fully_shard(module)
    return sharded(module).model_state_dict()


class Unfilled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def unfilled(folder):
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 3), Unfilled())
    try:
        sharded(module)
    except Exception as error:
        return type(error).__mro__[1].__name__, str(error)


def own_shards(folder):
    """A module whose user called `fully_shard`, set up twice, as for `fit` and `validate`."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    module = net()
    fully_shard(module.blocks[0])
    strategy = sharded(module)
    sharded(module)
    units = [name for name, part in module.named_modules() if isinstance(part, FSDPModule)]
    return units, train(strategy, adamw(module), data())


def evaluated(folder):
    from torch.distributed.tensor import DTensor

    strategy = sharded(net())
    before = set(vars(strategy.module)) - {"_with_parameters_gathered"}
    with torch.inference_mode():
        loss = strategy.step_method("validation_step")(data(1)[0])
    shards = all(isinstance(parameter, DTensor) for parameter in strategy.module.parameters())
    module = strategy.module
    strategy.teardown()
    return loss, shards, strategy.model is module, set(vars(module)) - before


def wrong_optimizer(folder):
    module = net()
    optimizer = torch.optim.SGD(net().parameters())
    try:
        sharded(module).setup_training([optimizer])
    except ValueError as error:
        return str(error)


def wrong_mesh(folder):
    try:
        sharded(net(), device_mesh=(2, 2), sharding_strategy="HYBRID_SHARD")
    except ValueError as error:
        return str(error)


CASES = {
    "full": weights,
    "value": partial(weights, algorithm="value", clip=0.01),
    "grad_op": partial(weights, sharding_strategy="SHARD_GRAD_OP"),
    "none": partial(weights, sharding_strategy="NO_SHARD"),
    "hybrid": partial(weights, sharding_strategy="HYBRID_SHARD", device_mesh=(2, 1)),
    "offload": partial(weights, cpu_offload=True),
    "root": partial(weights, auto_wrap_policy=lambda module: False),
    "layers": partial(weights, auto_wrap_policy=1),
    "again": partial(weights, activation_checkpointing_policy={Block}),
    "bf16": lambda folder: weights(folder, precision_plugin=FSDPPrecision("bf16-mixed", "cpu")),
    "autocast": lambda folder: weights(folder, precision_plugin=MixedPrecision("bf16-mixed", "cpu")),
    "window": window,
    "window_hybrid": partial(window, sharding_strategy="HYBRID_SHARD", device_mesh=(2, 1)),
    "cut": partial(window, cut=True),
    **{
        case.__name__: case
        for case in (
            manual,
            resumed,
            in_shards,
            from_meta,
            own_shards_from_meta,
            unfilled,
            own_shards,
            evaluated,
            wrong_optimizer,
            wrong_mesh,
        )
    },
}


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {name: case(folder) for name, case in CASES.items()}
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


# -- what came out of it -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    module = net()
    model, optimizer = train_alone(module, data(2))
    torch.save({"model": model, "optimizer": optimizer}, folder / "alone.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "error", __file__]
    started = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=180)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], "".join(said)[-6000:]
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.fixture
def alone():
    return train_alone(net(), data())[0]


@pytest.mark.parametrize("case", ["full", "grad_op", "none", "hybrid", "offload", "root", "layers", "again"])
def test_two_processes_train_as_one_does(found, alone, case):
    assert list(found[case]) == list(alone)
    torch.testing.assert_close(found[case], alone, **CLOSE)
    assert found[case]["start.weight"].data_ptr() == found[case]["end.weight"].data_ptr()
    torch.testing.assert_close(found[case]["frozen.weight"], net().frozen.weight.data, rtol=0, atol=0)


def test_gradients_are_clipped_by_value(found):
    torch.testing.assert_close(found["value"], train_alone(net(), data(), 0.01, "value")[0], **CLOSE)


@pytest.mark.parametrize("case", ["window", "window_hybrid", "cut"])
def test_a_window_adds_the_gradients_of_its_batches_up(found, case):
    module = net()
    optimizer = adamw(module)
    for batch in data(2):
        module.training_step(batch).backward()
    optimizer.step()
    torch.testing.assert_close(found[case], module.state_dict(), **CLOSE)


@pytest.mark.parametrize("case", ["bf16", "autocast"])
def test_a_mixed_format_keeps_weights_in_32_bits(found, alone, case):
    assert {value.dtype for name, value in found[case].items() if name != "mask"} == {torch.float32}
    far = torch.cat([(found[case][name].float() - alone[name].float()).abs().flatten() for name in alone])
    # Adam turns the sign of a gradient near zero into a whole step: few weights may be far, most are not
    assert far.mean() < 5e-4
    assert not torch.allclose(found[case]["start.weight"], alone["start.weight"], rtol=0, atol=1e-6)


def test_a_step_that_goes_backward_itself_is_averaged(found):
    module = net(kind=Manual)
    optimizer = adamw(module)
    module.backward = lambda loss: loss.backward()
    module.training_step(data(1)[0])
    optimizer.step()
    torch.testing.assert_close(found["manual"], module.state_dict(), **CLOSE)


def test_states_go_from_one_process_to_two_and_back(found, folder):
    model, optimizer, later_model, later_optimizer = found["resumed"]
    given = torch.load(folder / "alone.pt", weights_only=True)
    torch.testing.assert_close(model, dict(given["model"]), rtol=0, atol=0)
    torch.testing.assert_close(optimizer, given["optimizer"], rtol=0, atol=0)
    module = net()
    module.load_state_dict(given["model"])
    expected, state = train_alone(module, data(), state=given["optimizer"])
    torch.testing.assert_close(later_model, dict(expected), **CLOSE)
    torch.testing.assert_close(later_optimizer, state, **CLOSE)


def test_shards_of_two_processes_are_loaded_by_two_and_by_one(found, folder):
    from leyden.core.strategies.fsdp_state import load_sharded

    model, optimizer, saved = found["in_shards"]
    torch.testing.assert_close(model, saved, rtol=0, atol=0)
    module = net(seed=7)
    own = adamw(module)
    load_sharded(folder / "shards", module, [own])
    torch.testing.assert_close(dict(module.state_dict()), saved, rtol=0, atol=0)
    torch.testing.assert_close(own.state_dict()["state"], optimizer["state"], rtol=0, atol=0)


def test_a_module_of_the_meta_device_is_filled(found):
    tied, state = found["from_meta"]
    assert tied
    for filled in (state, found["own_shards_from_meta"]):
        assert all(
            torch.isfinite(value).all() and (value.any() or name == "norm.bias") for name, value in filled.items()
        )


def test_what_nothing_fills_is_named(found):
    kind, message = found["unfilled"]
    assert kind == "MisconfigurationException"
    assert "1.scale: " in message
    assert "reset_parameters" in message


def test_shards_of_the_user_are_kept(found, alone):
    units, state = found["own_shards"]
    assert units == ["", "blocks.0"]
    torch.testing.assert_close(state, alone, **CLOSE)


def test_evaluation_leaves_nothing_gathered_and_the_end_nothing_on_the_module(found):
    loss, shards, kept, left = found["evaluated"]
    torch.testing.assert_close(loss, net().training_step(data(1)[0]).detach(), **CLOSE)
    assert shards
    assert kept
    assert not left


def test_an_optimiser_of_other_parameters_is_refused(found):
    assert "does not seem to reference any FSDP parameters" in found["wrong_optimizer"]


def test_a_mesh_must_have_a_place_for_each_process(found):
    assert "device_mesh" in found["wrong_mesh"]
    assert "2 processes" in found["wrong_mesh"]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
