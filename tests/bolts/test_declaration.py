"""A class becomes a bolt by saying what it is; a declaration that could not work is refused at once."""

from dataclasses import dataclass, field

import pytest

from leyden.bolts import BoltValueError, bolt
from leyden.core import LightningModule


@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = 3
    names: tuple[str, ...] = field(default_factory=tuple)


def declare(name="sample", config=Config):
    return bolt(name, task="guessing", licence="MIT", config=config)


def test_the_decorated_class_is_the_same_class():
    class Model(LightningModule):
        """A sample."""

    assert declare()(Model) is Model


@pytest.mark.parametrize("name", ["", "Sample", "my-bolt", "a b", "a:b", "1st"])
def test_a_name_is_in_snake_case(name):
    with pytest.raises(BoltValueError, match="name must be in snake_case"):
        declare(name)


def test_a_config_is_a_frozen_dataclass_with_defaults_for_keywords():
    @dataclass
    class Loose:
        size: int = 3

    @dataclass(frozen=True)
    class Positional:
        size: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Demanding:
        size: int

    with pytest.raises(BoltValueError, match="must be a dataclass; got <class 'dict'>"):
        declare(config=dict)
    with pytest.raises(BoltValueError, match="Loose must be frozen"):
        declare(config=Loose)
    for config in (Positional, Demanding):
        with pytest.raises(BoltValueError, match="keyword-only and have a default; 'size' is not so"):
            declare(config=config)


def test_only_a_documented_lightning_module_can_be_a_bolt():
    with pytest.raises(BoltValueError, match="must be a LightningModule class; got <class 'object'>"):
        declare()(object)
    with pytest.raises(BoltValueError, match="needs a docstring"):

        @declare()
        class Silent(LightningModule):
            pass
