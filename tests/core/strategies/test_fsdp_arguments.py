"""What FSDPStrategy takes, and which submodules are units; no process is started."""

import functools

import pytest
import torch
from torch import nn

from leyden.core.errors import LightningDeprecationWarning, MisconfigurationException
from leyden.core.strategies.fsdp import FSDPStrategy
from leyden.core.strategies.fsdp_units import units_of


def model():
    """A root with two nested stages of blocks and tied ends."""
    block = functools.partial(nn.Sequential, nn.Linear(4, 4))
    root = nn.Module()
    root.start = nn.Linear(4, 4)
    root.stages = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4)))
    root.blocks = nn.ModuleList([nn.TransformerEncoderLayer(4, 1, 8), nn.Bilinear(2, 2, 2)])
    root.parts = nn.ModuleDict({"one": block()})
    root.end = nn.Linear(4, 4)
    root.end.weight = root.start.weight
    return root


def names(root, policy):
    paths = {module: name for name, module in root.named_modules()}
    return {paths[unit] for unit in units_of(root, policy)}


def test_blocks_of_lists_and_sequences_are_units():
    assert names(model(), None) == {"stages.0.0", "stages.1.0", "blocks.0", "blocks.1", "parts.one.0"}


def test_classes_choose_units_but_for_tied_parameters():
    assert names(model(), {nn.Bilinear, nn.TransformerEncoderLayer}) == {"blocks.0", "blocks.1"}
    assert not {"start", "end"} & names(model(), {nn.Linear})


def test_functions_choose_units():
    assert names(model(), lambda module: isinstance(module, nn.Bilinear)) == {"blocks.1"}
    assert names(model(), lambda module, recurse, nonwrapped_numel: recurse or nonwrapped_numel == 10) == {"blocks.1"}


def test_a_number_is_the_size_above_which_a_module_is_a_unit():
    assert names(model(), 150) == {"blocks.0"}
    assert names(model(), 19) >= {"stages.0.0", "stages.1.0", "parts.one.0"}


def test_inner_units_come_first():
    root = model()
    units = units_of(root, {nn.Linear, nn.TransformerEncoderLayer})
    layer = root.blocks[0]
    assert units.index(layer.linear1) < units.index(layer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sharding_strategy": "SOME"}, "FULL_SHARD"),
        ({"state_dict_type": "half"}, "state_dict_type"),
        ({"device_mesh": (2, 1)}, "HYBRID_SHARD"),
        ({"device_mesh": (2, 0), "sharding_strategy": "HYBRID_SHARD"}, "replicate, shard"),
        ({"device_mesh": "two", "sharding_strategy": "HYBRID_SHARD"}, "DeviceMesh"),
        ({"auto_wrap_policy": "blocks"}, "auto_wrap_policy"),
        ({"auto_wrap_policy": 0}, "at least 1"),
        ({"activation_checkpointing_policy": [1]}, "activation_checkpointing_policy"),
        ({"cpu_offload": "yes"}, "CPUOffloadPolicy"),
        ({"mixed_precision": torch.bfloat16}, "MixedPrecisionPolicy"),
        ({"backward_prefetch": None}, "FSDP1"),
        ({"use_orig_params": False}, "always on"),
        ({"wings": 2}, "unexpected argument 'wings'"),
        ({"activation_checkpointing": nn.Linear, "activation_checkpointing_policy": {nn.Linear}}, "cannot set both"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(MisconfigurationException, match=words):
        FSDPStrategy(**arguments)


def test_what_fsdp2_always_does_may_be_asked_for():
    strategy = FSDPStrategy(use_orig_params=True, sync_module_states=True, limit_all_gathers=True)
    assert (strategy.sharded, strategy.sharding_strategy, strategy.state_dict_type) == (True, "FULL_SHARD", "full")


def test_the_old_name_of_activation_checkpointing_is_taken_with_a_warning():
    with pytest.warns(LightningDeprecationWarning, match="activation_checkpointing_policy"):
        FSDPStrategy(activation_checkpointing=[nn.Linear])


def test_enumerations_of_fsdp1_name_a_sharding_strategy():
    from torch.distributed.fsdp import ShardingStrategy

    assert FSDPStrategy(sharding_strategy=ShardingStrategy.SHARD_GRAD_OP).sharding_strategy == "SHARD_GRAD_OP"


def test_tensors_without_memory_are_made_on_the_meta_device():
    strategy = FSDPStrategy()
    with strategy.tensor_init_context(empty_init=True):
        assert nn.Linear(2, 2).weight.is_meta
    with strategy.tensor_init_context():
        assert nn.Linear(2, 2).weight.device.type == "cpu"
