"""Seeds: every generator of the process is set, saved, put back, and left alone."""

import io
import os
import random

import numpy as np
import pytest
import torch

import leyden.core as L
from leyden.core.errors import LeydenWarning, MisconfigurationValueError
from leyden.core.seeding import collect_rng_state, pl_worker_init_function, reset_seed, restore_rng_state


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "so that it is put back")
        monkeypatch.delenv(name)
    state = collect_rng_state()
    yield
    restore_rng_state(state)


def draw():
    return random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(2).tolist()


def test_a_seed_sets_every_generator():
    assert L.seed_everything(42) == 42
    first = draw()
    random.seed(42), np.random.seed(42), torch.manual_seed(42)
    assert draw() == first


def test_the_seed_is_announced_once_it_is_set(capsys):
    L.seed_everything(42)
    assert capsys.readouterr().out == "Seed set to 42\n"
    L.seed_everything(42, verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("workers", [False, True])
def test_processes_started_later_find_the_seed(workers):
    L.seed_everything(7, workers=workers)
    assert os.environ["PL_GLOBAL_SEED"] == "7"
    assert os.environ["PL_SEED_WORKERS"] == str(int(workers))
    assert L.seed_everything() == 7


def test_without_any_seed_it_is_zero_and_said():
    with pytest.warns(LeydenWarning, match="LY-S001.*No seed found"):
        assert L.seed_everything() == 0


def test_without_any_seed_it_is_zero_and_not_said_if_nothing_is_to_be_said():
    assert L.seed_everything(verbose=False) == 0


def test_a_variable_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "many")
    with pytest.raises(MisconfigurationValueError, match="Invalid seed specified via PL_GLOBAL_SEED: 'many'"):
        L.seed_everything()


def test_a_variable_out_of_range_is_refused(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "-3")
    with pytest.raises(MisconfigurationValueError, match=r"-3 is not in bounds.*from 0 to 4294967295"):
        L.seed_everything(verbose=False)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, "12", np.int64(5), 3.0])
def test_the_whole_range_is_allowed(seed):
    assert L.seed_everything(seed, verbose=False) == int(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**40, 10e9, "x", "1.5", float("nan"), float("inf"), [1], object()])
def test_anything_else_is_refused_and_changes_nothing(seed):
    before = torch.get_rng_state()
    with pytest.raises(MisconfigurationValueError, match="integer from 0 to 4294967295"):
        L.seed_everything(seed, verbose=False)
    with pytest.raises(ValueError):
        L.seed_everything(seed, verbose=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert "PL_GLOBAL_SEED" not in os.environ


@pytest.mark.parametrize("workers", [False, True])
def test_a_seed_can_be_set_again(workers):
    L.seed_everything(7, workers=workers, verbose=False)
    expected = draw()
    reset_seed()
    assert draw() == expected
    assert os.environ["PL_SEED_WORKERS"] == str(int(workers))


def test_without_a_seed_there_is_nothing_to_set_again():
    before = torch.get_rng_state()
    reset_seed()
    assert torch.equal(torch.get_rng_state(), before)
    assert "PL_GLOBAL_SEED" not in os.environ


def test_every_worker_of_every_rank_draws_numbers_of_its_own():
    def numbers_of(worker, rank):
        torch.manual_seed(42 + worker)  # as torch seeds a worker
        pl_worker_init_function(worker, rank)
        return tuple(map(str, draw()))

    drawn = [numbers_of(worker, rank) for worker in range(3) for rank in range(3)]
    assert len({number for numbers in drawn for number in numbers}) == 4 * len(drawn)
    assert drawn == [numbers_of(worker, rank) for worker in range(3) for rank in range(3)]


def test_isolation_puts_everything_back():
    L.seed_everything(1, verbose=False)
    with L.isolate_rng():
        inside = draw()
    assert draw() == inside


def test_isolation_puts_everything_back_after_an_exception():
    L.seed_everything(1, verbose=False)
    expected = draw()
    L.seed_everything(1, verbose=False)
    with pytest.raises(KeyError), L.isolate_rng():
        draw()
        raise KeyError
    assert draw() == expected


def test_isolation_nests():
    L.seed_everything(1, verbose=False)
    with L.isolate_rng():
        draw()
        with L.isolate_rng():
            inner = draw()
        assert draw() == inner


def test_the_state_goes_through_a_safe_file():
    L.seed_everything(3, verbose=False)
    np.random.randn()  # leaves a second normal number behind, which is part of the state
    buffer = io.BytesIO()
    torch.save(collect_rng_state(), buffer)
    expected = [draw() for _ in range(3)]
    L.seed_everything(4, verbose=False)
    buffer.seek(0)
    restore_rng_state(torch.load(buffer, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_a_collected_state_is_a_copy():
    L.seed_everything(3, verbose=False)
    state = collect_rng_state()
    expected = draw()
    draw()
    restore_rng_state(state)
    assert draw() == expected


def test_the_sanity_check_draws_no_number_of_the_training(quiet, tiny, numbers):
    drawn = []

    class Noisy(tiny):
        def training_step(self, batch, batch_idx):
            drawn.append(draw())
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            draw()

    for count in (0, 2):
        L.seed_everything(5, verbose=False)
        quiet(num_sanity_val_steps=count, limit_train_batches=2).fit(Noisy(), list(numbers()), list(numbers()))
    assert drawn[:2] == drawn[2:]


def test_loading_a_model_draws_no_number(saved, tiny):
    path = saved(tiny())
    L.seed_everything(6, verbose=False)
    expected = draw()
    L.seed_everything(6, verbose=False)
    tiny.load_from_checkpoint(path)
    assert draw() == expected
