"""The digits: which they are, how they are split, and when they are read."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch

from leyden.bolts import BoltError, BoltValueError, DigitsDataModule
from leyden.core.errors import MissingExtraError

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


@pytest.fixture
def digits():
    data = DigitsDataModule()
    data.setup("fit")
    return data


@pytest.fixture
def source():
    """The pictures and labels as scikit-learn gives them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.images).float().unsqueeze(1), torch.tensor(found.target)


def test_the_parts_follow_one_another_in_the_order_of_the_source(digits, source):
    parts = (digits.train, digits.val, digits.test)
    assert [len(part) for part in parts] == [1150, 287, 360]
    for index in (0, 1):
        assert torch.equal(torch.cat([part.tensors[index] for part in parts]), source[index])


def test_the_test_is_the_last_fifth_and_the_validation_the_last_fifth_of_the_rest(digits, source):
    assert len(digits.train) + len(digits.val) == len(source[0]) * 4 // 5 == 1437
    other = DigitsDataModule(validation=0.5)
    other.setup("fit")
    assert [len(part) for part in (other.train, other.val, other.test)] == [719, 718, 360]
    assert torch.equal(other.test.tensors[0], digits.test.tensors[0])


def test_the_stated_sha256_is_that_of_the_decoded_bytes(source):
    images, labels = source
    data = images.byte().numpy().tobytes() + labels.byte().numpy().tobytes()
    assert hashlib.sha256(data).hexdigest() == SHA256 == DigitsDataModule.SHA256


def test_other_bytes_are_refused(monkeypatch):
    from sklearn import datasets

    real = datasets.load_digits

    def changed():
        found = real()
        found.images[7, 3, 3] += 1
        return found

    monkeypatch.setattr(datasets, "load_digits", changed)
    with pytest.raises(BoltError, match=rf"their sha256 is [0-9a-f]{{64}}, not {SHA256}"):
        DigitsDataModule().setup("fit")


def test_batches_are_pictures_and_labels(digits):
    images, labels = next(iter(digits.train_dataloader()))
    assert (tuple(images.shape), images.dtype) == ((64, 1, 8, 8), torch.float32)
    assert (tuple(labels.shape), labels.dtype) == ((64,), torch.int64)
    assert (digits.train.tensors[0].min(), digits.train.tensors[0].max()) == (0, 16)


def test_only_the_training_is_shuffled(digits):
    torch.manual_seed(0)
    first, second = (torch.cat([labels for _, labels in digits.train_dataloader()]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, digits.train.tensors[1].sort().values)
    for part, loader in ((digits.val, digits.val_dataloader()), (digits.test, digits.test_dataloader())):
        assert torch.equal(torch.cat([images for images, _ in loader]), part.tensors[0])
    assert torch.equal(torch.cat(list(digits.predict_dataloader())), digits.test.tensors[0])


def test_the_constructor_reads_nothing():
    code = """
        import json, sys
        from leyden.bolts import DigitsDataModule
        data = DigitsDataModule()
        before = [name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy")]
        data.setup("fit")
        print(json.dumps([before, "sklearn" in sys.modules]))
    """.replace("\n        ", "\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], True]


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    class Missing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "sklearn":
                raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"pip install 'leyden-bolts\[tables\]'") as caught:
        DigitsDataModule().setup("fit")
    assert caught.value.name == "sklearn"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1; got 2.5"),
        ({"validation": 1.0}, r"validation must be .*; got 1.0"),
        ({"validation": -0.5}, r"validation must be .*; got -0.5"),
        ({"validation": 0}, "validation must be more than 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(BoltValueError, match=message):
        DigitsDataModule(**arguments)
