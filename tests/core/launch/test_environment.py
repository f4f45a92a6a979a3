"""Who a process is, from what its launcher has set."""

import pytest

from leyden.core.errors import MisconfigurationException
from leyden.core.launch.choice import choose_launcher
from leyden.core.launch.environment import (
    LightningEnvironment,
    TorchElasticEnvironment,
    check_world,
    choose_environment,
)
from leyden.core.launch.script import ScriptLauncher
from leyden.core.launch.spawn import SpawnLauncher
from leyden.core.ranks import rank_zero_only

BY_HAND = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}


@pytest.fixture
def variables(monkeypatch):
    def give(**given):
        for name in (*BY_HAND, "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID", "LEYDEN_ELASTIC", "PET_NNODES"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.mark.parametrize(
    ("extra", "node"), [({"NODE_RANK": "1"}, 1), ({"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1"}, 1), ({}, 0)]
)
def test_processes_that_somebody_else_started(variables, extra, node):
    variables(**BY_HAND, **extra)
    here = choose_environment()
    assert isinstance(here, TorchElasticEnvironment)
    assert here.creates_processes_externally
    assert (here.main_address, here.main_port) == ("10.0.0.1", 1234)
    assert (here.world_size(), here.global_rank(), here.local_rank(), here.node_rank()) == (4, 3, 1, node)
    here.set_world_size(9)
    here.set_global_rank(9)
    assert (here.world_size(), here.global_rank()) == (4, 3)
    assert choose_launcher(here, "popen", 2) is None


def test_this_machine_alone(variables):
    variables()
    here = choose_environment()
    assert isinstance(here, LightningEnvironment)
    assert not here.creates_processes_externally
    assert (here.main_address, here.world_size(), here.global_rank(), here.local_rank()) == ("127.0.0.1", 1, 0, 0)
    assert here.main_port == here.main_port > 1023
    # a test is no script
    assert isinstance(choose_launcher(here, "popen", 2), SpawnLauncher)
    assert isinstance(choose_launcher(here, "fork", 2), SpawnLauncher)


def test_processes_that_are_started_by_local_rank(variables, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "_rank", None)
    variables(LOCAL_RANK="1", NODE_RANK="2", MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")
    here = choose_environment()
    assert isinstance(here, LightningEnvironment)
    assert here.creates_processes_externally
    here.validate_settings(num_devices=4, num_nodes=3)
    assert (here.world_size(), here.global_rank(), here.node_rank(), here.main_port) == (12, 9, 2, 1234)


@pytest.mark.parametrize(
    ("asked", "obtained", "elastic", "fits"),
    [
        ((2, 1), 2, False, True),
        ((2, 2), 4, False, True),
        ((2, 1), 1, False, False),
        ((2, 1), 4, False, False),
        ((2, 2), 2, True, True),
        ((2, 2), 8, True, False),
    ],
)
def test_the_world_is_compared_with_what_was_asked_for(asked, obtained, elastic, fits):
    if fits:
        check_world(asked, obtained, elastic)
        return
    message = rf"`devices={asked[0]}` and `num_nodes={asked[1]}`.* does not match the world size \({obtained}\)"
    with pytest.raises(MisconfigurationException, match=message):
        check_world(asked, obtained, elastic)


def test_a_launch_with_fewer_processes_is_refused_unless_it_is_elastic(variables):
    variables(**BY_HAND, TORCHELASTIC_RUN_ID="x")
    with pytest.raises(ValueError, match="world size"):
        choose_environment().validate_settings(2, 4)
    for allows in ({"LEYDEN_ELASTIC": "1"}, {"PET_NNODES": "1:4"}):
        variables(**BY_HAND, TORCHELASTIC_RUN_ID="x", **allows)
        choose_environment().validate_settings(2, 4)


def test_several_machines_need_a_script_and_a_place_to_meet(variables):
    variables()
    with pytest.raises(MisconfigurationException, match="`num_nodes=2` needs a script"):
        choose_launcher(choose_environment(), "spawn", 2, num_nodes=2)
    with pytest.raises(MisconfigurationException, match="NODE_RANK, MASTER_ADDR, MASTER_PORT is not set"):
        ScriptLauncher(2, num_nodes=2).launch(print)
