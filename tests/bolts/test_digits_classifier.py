"""The classifier of digits: its size, its config, its schedule, its augmentation and what it logs."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from leyden.bolts import BoltValueError, DigitsClassifier, DigitsConfig
from leyden.bolts.augmentation import shift_and_rotate
from leyden.bolts.schedules import one_cycle
from leyden.core import Trainer


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        max_epochs=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )


@pytest.fixture
def blobs():
    """Pictures of which the label is the row that is inked."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 8, (96,), generator=generator)
    images = torch.randint(0, 4, (96, 1, 8, 8), generator=generator).float()
    images[torch.arange(96), 0, labels] = 16.0
    return TensorDataset(images, labels)


def test_it_is_small():
    assert sum(parameter.numel() for parameter in DigitsClassifier().parameters()) == 73_002


def test_it_takes_pixels_as_they_were_counted():
    model = DigitsClassifier(DigitsConfig(width=4)).eval()
    seen = []
    model.features.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.full((1, 1, 8, 8), 16.0))
    assert seen[0].max() == 1.0


def test_the_example_input_is_a_batch_of_pictures():
    images = DigitsClassifier().example_input_array
    assert (tuple(images.shape), images.dtype) == ((2, 1, 8, 8), torch.float32)
    assert (images.min(), images.max()) == (0, 16)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0), ("width", 2.0), ("width", True), ("width", "32"), ("dropout", 1.0), ("dropout", -0.1),
        ("lr", -1e-3), ("lr", math.nan), ("lr", math.inf), ("lr", "fast"), ("epochs", 0), ("weight_decay", -1),
        ("shift", 8), ("rotate", 180), ("label_smoothing", 1.0), ("dropout", None),
    ],
)  # fmt: skip
def test_a_config_refuses_values_that_can_not_be(field, value):
    with pytest.raises(BoltValueError, match=rf"{field} must be .*; got {value!r}"):
        DigitsConfig(**{field: value})


def test_a_config_does_not_change():
    with pytest.raises(AttributeError):
        DigitsConfig().width = 3


def test_it_logs_loss_accuracy_and_f1_of_the_whole_epoch(trainer, blobs):
    model = DigitsClassifier(DigitsConfig(width=4))
    logged = trainer.test(model, DataLoader(blobs, batch_size=36), verbose=False)[0]
    images, labels = blobs.tensors
    with torch.no_grad():
        logits = model.eval()(images)
    predicted = logits.argmax(1)
    scores = []
    for digit in set(labels.tolist()) | set(predicted.tolist()):
        hits = ((predicted == digit) & (labels == digit)).sum().item()
        scores.append(2 * hits / ((predicted == digit).sum() + (labels == digit).sum()).item())
    assert logged["test_accuracy"] == pytest.approx((predicted == labels).float().mean().item())
    assert logged["test_f1"] == pytest.approx(sum(scores) / len(scores), abs=1e-6)
    assert logged["test_loss"] == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.1).item(), abs=1e-5)


def test_it_learns_and_says_so(trainer, blobs):
    torch.manual_seed(0)
    model = DigitsClassifier(DigitsConfig(width=8, epochs=8, lr=1e-2, shift=0.2, rotate=0.0, dropout=0.0))
    trainer.fit(model, DataLoader(blobs, batch_size=16, shuffle=True), DataLoader(blobs, batch_size=16))
    assert set(trainer.callback_metrics) == {"train_loss", "val_loss", "val_accuracy", "val_f1"}
    assert trainer.callback_metrics["val_accuracy"] > 0.9


def test_it_predicts_probabilities(trainer, blobs):
    model = DigitsClassifier(DigitsConfig(width=4))
    found = torch.cat(trainer.predict(model, DataLoader(blobs.tensors[0], batch_size=40)))
    assert tuple(found.shape) == (96, 10)
    torch.testing.assert_close(found.sum(1), torch.ones(96))


def test_the_learning_rate_follows_one_cycle_over_the_epochs_of_the_config():
    model = DigitsClassifier(DigitsConfig(width=4, lr=0.5, epochs=10))
    parts = model.configure_optimizers()
    rates = []
    for _ in range(12):
        rates.append(parts["optimizer"].param_groups[0]["lr"])
        parts["optimizer"].step()
        parts["lr_scheduler"].step()
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[top] == pytest.approx(0.5, rel=0.03)
    assert 0 < rates[9] < 0.01
    assert rates[10:] == [0.0, 0.0]


def test_one_cycle_is_continuous():
    values = [one_cycle(n / 1000) for n in range(1100)]
    assert max(abs(a - b) for a, b in pairwise(values)) < 0.006
    assert (min(values), max(values)) == (0.0, 1.0)


def test_without_shift_and_rotation_a_picture_stays():
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(shift_and_rotate(images, 0.0, 0.0), images)


def test_each_picture_moves_by_its_own_amount_and_by_no_more_than_was_said():
    images = torch.zeros(200, 1, 9, 9)
    images[:, :, 4, 4] = 1.0
    torch.manual_seed(0)
    moved = shift_and_rotate(images, 2.0, 0.0)
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.ones(200))
    places = torch.arange(9.0)
    down = (moved.sum((1, 3)) * places).sum(1) - 4
    right = (moved.sum((1, 2)) * places).sum(1) - 4
    for offset in (down, right):
        assert -2.001 < offset.min() < -1.7
        assert 1.7 < offset.max() < 2.001
    assert torch.corrcoef(torch.stack((down, right)))[0, 1].abs() < 0.3


@pytest.mark.parametrize(("height", "width"), [(33, 33), (33, 65)])
def test_a_picture_turns_without_being_stretched(height, width):
    images = torch.zeros(100, 1, height, width)
    images[:, :, height // 2, width // 2 + 10] = 1.0
    torch.manual_seed(0)
    turned = shift_and_rotate(images, 0.0, 40.0)[:, 0]
    mass = turned.sum((1, 2))
    y = (turned.sum(2) * (torch.arange(height) - height // 2)).sum(1) / mass
    x = (turned.sum(1) * (torch.arange(width) - width // 2)).sum(1) / mass
    torch.testing.assert_close((x**2 + y**2).sqrt(), torch.full((100,), 10.0), atol=0.35, rtol=0)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert -41 < angles.min() < -34
    assert 34 < angles.max() < 41


def test_augmentation_is_of_the_training_alone():
    model = DigitsClassifier(DigitsConfig(width=4, dropout=0.0)).eval()
    images, labels = model.example_input_array, torch.tensor([1, 2])
    seen = []
    model.features.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    model.predict_step(images, 0)
    torch.testing.assert_close(seen[0] * 16, images)
    with pytest.warns(UserWarning, match="not registered on the model"):
        model.training_step((images, labels), 0)
    assert not torch.allclose(seen[1] * 16, images)
