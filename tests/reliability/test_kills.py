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


def kill_often(trials, chance, seconds, kills):
    """Kill trainings until there were so many, each chain of them gone on with to its end; returns what happened."""
    killed = in_saves = fresh = 0
    for trial in trials:
        through = False
        while not through:
            # a few end before the first step, the others at any instant of a third of all steps
            early, share = chance.random() < 0.15, chance.random()

            def wait(step, trial=trial, early=early, share=share):
                if early == (step is None):
                    time.sleep(share * (0.5 if early else seconds / 3))
                    trial.kill()

            through = trial.step(wait if killed + trial.kills < kills else None)
        killed, in_saves, fresh = killed + trial.kills, in_saves + trial.in_saves, fresh + trial.fresh
        yield trial
        if killed >= kills:
            break
    print(f"{killed} kills, {in_saves} while a file was written, {fresh} fresh starts")


def check_kills(chain, chance, whole, undisturbed, kills, **job):
    width, place = job["width"], job.pop("place")
    names, seconds = undisturbed(**job)
    for trial in kill_often((chain(place, **job) for _ in itertools.count()), chance, seconds, kills):
        assert trial.end() == whole(width), trial.log()
        assert set(names) <= set(trial.names()), trial.log()


@pytest.mark.parametrize(("saver", "beside", "place"), [("both", False, PLACES[-1]), ("best", True, "same")])
def test_kills_at_random_instants(chain, chance, whole, undisturbed, saver, beside, place):
    check_kills(chain, chance, whole, undisturbed, 5, width=SMALL, saver=saver, beside=beside, place=place)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("saver", SAVERS)
def test_a_hundred_kills_of_a_large_model(chain, chance, whole, undisturbed, saver, place, beside):
    check_kills(chain, chance, whole, undisturbed, 6, width=LARGE, saver=saver, beside=beside, place=place)


@pytest.mark.parametrize("saver", [s if s == "both" else pytest.param(s, marks=pytest.mark.slow) for s in SAVERS])
def test_kills_between_any_two_changes_of_the_folder(chain, whole, undisturbed, saver):
    """The n-th training is killed just before it opens, renames, links or deletes a file there for the n-th time."""
    names, _ = undisturbed(SMALL, saver, False)
    for number in itertools.count():
        trial = chain(width=SMALL, saver=saver, beside=False)
        if trial.step(at=number) or number > 40:
            break
        while not trial.step():
            pass
        assert trial.end() == whole(SMALL), (number, trial.log())
        assert set(names) <= set(trial.names()), (number, trial.log())
    assert number > 20
