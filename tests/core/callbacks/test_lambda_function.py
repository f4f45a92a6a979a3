"""LambdaCallback: functions in the place of hooks."""

import pytest

from leyden.core.callbacks import LambdaCallback
from leyden.core.errors import MisconfigurationTypeError


def test_functions_are_called_as_hooks(quiet, tiny, numbers):
    seen = []
    callback = LambdaCallback(
        setup=lambda trainer, pl_module, stage: seen.append(stage),
        on_train_batch_end=lambda trainer, pl_module, outputs, batch, batch_idx: seen.append(batch_idx),
        on_fit_end=None,
    )
    quiet(callbacks=callback).fit(tiny(), numbers(6))
    assert seen == ["fit", 0, 1, 2]


@pytest.mark.parametrize("name", ["on_batch_ends", "state_dict", "__init__"])
def test_only_hooks_have_names(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        LambdaCallback(**{name: print})


def test_only_functions_can_be_hooks():
    with pytest.raises(MisconfigurationTypeError, match="`setup` must be a function; got 3"):
        LambdaCallback(setup=3)
