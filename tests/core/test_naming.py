"""Names of checkpoint files."""

import pytest
import torch

from leyden.core.callbacks.naming import format_name
from leyden.core.errors import MisconfigurationValueError

VALUES = {"epoch": 3, "step": torch.tensor(120), "val_loss": torch.tensor(0.12345), "val/acc": 0.5, "nan": float("nan")}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{epoch}", "epoch=3"),
        ("{epoch}-{step}", "epoch=3-step=120"),
        ("{epoch:03d}", "epoch=003"),
        ("{step:06d}", "step=000120"),
        ("{epoch}-{val_loss:.2f}", "epoch=3-val_loss=0.12"),
        ("{val_loss:.3e}", "val_loss=1.235e-01"),
        ("{val/acc:.1f}", "val/acc=0.5"),
        ("{nan:.2f}", "nan=nan"),
        ("{unknown}", "unknown=0"),
        ("{unknown:.2f}", "unknown=0.00"),
        ("plain", "plain"),
        ("run {epoch} of {epoch}", "run epoch=3 of epoch=3"),
        ("", ""),
    ],
)
def test_patterns(pattern, name):
    assert format_name(pattern, VALUES) == name


def test_names_of_values_can_be_left_out():
    assert format_name("e{epoch}-acc{val/acc:.2f}", VALUES, insert_names=False) == "e3-acc0.50"


def test_a_prefix_and_other_separators():
    assert format_name("{epoch}", VALUES, prefix="net", join="_", equals=":") == "net_epoch:3"


@pytest.mark.parametrize("pattern", ["{val_loss:03d}", "{epoch:q}"])
def test_a_format_that_does_not_fit_names_pattern_and_value(pattern):
    with pytest.raises(
        MisconfigurationValueError, match=r"file name pattern '.*' has a format that does not fit (val_loss|epoch)="
    ):
        format_name(pattern, VALUES)
