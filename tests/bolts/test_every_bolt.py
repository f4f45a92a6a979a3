"""What holds for every registered bolt."""

import json
from dataclasses import asdict

import pytest
import torch

from leyden.bolts import create_model, describe, list_models
from leyden.core import Callback, LightningModule, Trainer

# A fixed batch for the example input of a bolt, by what the bolt is for.
BATCHES = {"image classification": lambda images: (images, torch.arange(len(images)) % 10)}

every_bolt = pytest.mark.parametrize("name", list_models())


def small_trainer(folder, callbacks=(), **options):
    return Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )


class Losses(Callback):
    """Collects the loss of each step, with the same random numbers in each."""

    def __init__(self):
        self.values = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        torch.manual_seed(0)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


def trained(name, folder, steps):
    """A model after some steps on one fixed batch, its trainer, and the loss before each step."""
    torch.manual_seed(0)
    model = create_model(name)
    batch = BATCHES[describe(name).task](model.example_input_array)
    losses = Losses()
    trainer = small_trainer(folder, [losses], max_steps=steps)
    trainer.fit(model, [batch] * steps, [batch])
    return model, trainer, losses.values


@every_bolt
def test_it_says_what_it_is(name):
    info = describe(name)
    assert info.broken is None
    assert info.summary.endswith(".")
    assert info.task in BATCHES
    assert info.licence


@every_bolt
def test_its_config_is_plain_data_and_round_trips(name):
    config = create_model(name).config
    again = json.loads(json.dumps(asdict(config)))
    assert again == asdict(config)
    assert create_model(name, config=again).config == config
    assert {field.name: field.default for field in describe(name).config} == asdict(config)


@every_bolt
def test_it_is_built_without_the_network(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a bolt's constructor reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert isinstance(create_model(name), LightningModule)


@every_bolt
def test_it_is_random_by_the_seed_alone(name):
    def weights(seed):
        torch.manual_seed(seed)
        return create_model(name).state_dict()

    one, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@every_bolt
def test_two_steps_lower_the_loss_on_a_fixed_batch(name, tmp_path):
    _, _, losses = trained(name, tmp_path, steps=3)
    assert losses[2] < losses[0]


@every_bolt
def test_forward_is_deterministic_in_eval_mode(name):
    model = create_model(name).eval()
    with torch.no_grad():
        assert torch.equal(model(model.example_input_array), model(model.example_input_array))


@every_bolt
def test_a_checkpoint_brings_back_config_and_weights_strictly(name, tmp_path):
    model, trainer, _ = trained(name, tmp_path, steps=1)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "model.ckpt", strict=True)
    assert again.config == model.config
    assert type(again.config) is type(model.config)
    assert set(again.state_dict()) == set(model.state_dict())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@every_bolt
def test_a_checkpoint_with_a_renamed_layer_is_refused(name, tmp_path):
    model, trainer, _ = trained(name, tmp_path, steps=1)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    first = next(iter(content["state_dict"]))
    content["state_dict"][f"renamed.{first}"] = content["state_dict"].pop(first)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(RuntimeError, match="renamed"):
        type(model).load_from_checkpoint(tmp_path / "other.ckpt")
