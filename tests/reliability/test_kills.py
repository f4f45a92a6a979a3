# SPDX-License-Identifier: Apache-2.0
"""Trainings killed at any instant: every file under its name is whole, nothing saved is lost, the end is the same.

The main suite kills a few small ones. At least a hundred of 50 MB are killed by
``pytest tests/reliability -m "slow and reliability"``.
"""

import itertools
import os
import time

import pytest

pytestmark = pytest.mark.reliability
SMALL, LARGE = 288, 2048  # weights and Adam's state of one square layer: 1 MB and 50 MB
SAVERS = ("both", "top", "last", "link", "best")
# the other file system is where Linux keeps shared memory
PLACES = ("same", "other") if os.path.isdir("/dev/shm") else ("same",)


def kill_often(chain, chance, whole, undisturbed, kills, *, width, saver, beside, place):
    """Kill trainings until there were so many, each chain of them gone on with to its end."""
    names, seconds = undisturbed(width, saver, beside)
    killed = in_saves = fresh = 0
    while killed < kills:
        trial = chain(place, width=width, saver=saver, beside=beside)
        through = False

        def wait(step, trial=trial):
            early = wait.early
            if (step is None) is early:
                time.sleep(wait.pause)
                trial.kill()

        while not through:
            # a few end before the first step, the others at any instant of a third of all steps
            wait.early = chance.random() < 0.15
            wait.pause = chance.random() * (0.5 if wait.early else seconds / 3)
            done = killed + trial.kills >= kills
            try:
                through = trial.step(None if done else wait)
            except ProcessLookupError:
                pytest.fail("it ended before it was killed, and was waited for")
        assert trial.end() == whole(width), f"after {trial.kills} kills"
        assert trial.names() == names, f"after {trial.kills} kills"
        killed, in_saves, fresh = killed + trial.kills, in_saves + trial.in_saves, fresh + trial.fresh
    print(f"{killed} kills, {in_saves} while a file was written, {fresh} fresh starts")


@pytest.mark.parametrize(("saver", "beside", "place"), [("both", False, PLACES[-1]), ("top", True, "same")])
def test_kills_at_random_instants(chain, chance, whole, undisturbed, saver, beside, place):
    kill_often(chain, chance, whole, undisturbed, 3, width=SMALL, saver=saver, beside=beside, place=place)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("saver", SAVERS)
def test_a_hundred_kills_of_a_large_model(chain, chance, whole, undisturbed, saver, place, beside):
    kill_often(chain, chance, whole, undisturbed, 6, width=LARGE, saver=saver, beside=beside, place=place)
