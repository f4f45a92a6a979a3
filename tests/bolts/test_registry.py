"""Bolts are found by name: in metadata, without imports, with an answer for everything that can go wrong."""

import pytest

from leyden.bolts import (
    BoltError,
    BoltValueError,
    DigitsClassifier,
    DigitsConfig,
    ModelInfo,
    create_model,
    describe,
    list_models,
)
from leyden.core.errors import LeydenError

NAME = "digits_classifier"


def test_the_built_in_bolts_are_listed():
    assert NAME in list_models()
    assert list_models() == sorted(list_models())


def test_a_pattern_chooses_names():
    assert list_models("digits*") == [NAME]
    assert list_models("*_CLASSIFIER") == []
    assert list_models("no*") == []


def test_a_task_chooses_bolts():
    assert list_models(task="image classification") == [NAME]
    assert list_models(task="time travel") == []


def test_listing_imports_no_bolt(world, a_bolt):
    world.distribution("leyden-noisy", {"noisy": "noisy_module:Model"}, noisy_module=a_bolt("noisy"))
    names, modules = world.run("names = list_models(); answer([names, list(sys.modules)])")
    assert names == [NAME, "noisy"]
    assert not {"noisy_module", "leyden.bolts.digits_classifier", "leyden.metrics", "sklearn"} & set(modules)


def test_a_bolt_describes_itself():
    info = describe(NAME)
    assert isinstance(info, ModelInfo)
    assert info.summary == "A convolutional classifier of 8 x 8 pictures of digits."
    assert (info.task, info.licence, info.distribution) == ("image classification", "Apache-2.0", "leyden-bolts")
    assert info.paper.startswith("LeCun")
    assert info.target == "leyden.bolts.digits_classifier:DigitsClassifier"
    assert info.broken is None
    assert {field.name: field.default for field in info.config} == vars(DigitsConfig())
    assert info.config[0].type == "int"
    for part in (info.summary, info.paper, "width: int = 32"):
        assert part in str(info)


def test_a_model_is_made_from_the_defaults_or_a_config_or_fields_or_both():
    assert create_model(NAME).config == DigitsConfig()
    assert create_model(NAME, config=DigitsConfig(width=4)).config == DigitsConfig(width=4)
    assert create_model(NAME, config={"width": 4}).config == DigitsConfig(width=4)
    assert create_model(NAME, width=4, lr=0.1).config == DigitsConfig(width=4, lr=0.1)
    both = create_model(NAME, config=DigitsConfig(width=4, lr=0.5), lr=0.1)
    assert both.config == DigitsConfig(width=4, lr=0.1)
    assert create_model(NAME, config={"width": 4, "lr": 0.5}, lr=0.1).config == DigitsConfig(width=4, lr=0.1)
    assert type(both) is DigitsClassifier


def test_the_name_of_the_distribution_may_stand_before_the_name():
    assert isinstance(create_model("leyden-bolts:digits_classifier", width=4), DigitsClassifier)
    assert describe("Leyden_Bolts:digits_classifier").distribution == "leyden-bolts"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(BoltValueError, match=r"no bolt 'digit_classifer'; did you mean 'digits_classifier'\?"):
        create_model("digit_classifer")
    with pytest.raises(BoltValueError, match=r"no bolt 'xyz'; installed are .*digits_classifier"):
        describe("xyz")
    with pytest.raises(BoltValueError, match="no bolt 'elsewhere:digits_classifier'"):
        create_model("elsewhere:digits_classifier")
    with pytest.raises(BoltValueError, match="must be a string; got None"):
        create_model(None)


@pytest.mark.parametrize("pretrained", [True, "digits", None, "/a/path"])
def test_weights_that_do_not_exist_are_not_pretended(pretrained):
    with pytest.raises(BoltValueError, match=f"no weights yet, so pretrained must be False; got {pretrained!r}"):
        create_model(NAME, pretrained=pretrained)


def test_a_config_that_does_not_fit_is_refused():
    with pytest.raises(BoltValueError, match="'widht' is no field of DigitsConfig: did you mean 'width'"):
        create_model(NAME, widht=3)
    with pytest.raises(BoltValueError, match="'zzz' is no field of DigitsConfig: it has width, dropout"):
        create_model(NAME, config={"zzz": 3})
    with pytest.raises(BoltValueError, match="must be a DigitsConfig or a mapping of its fields; got 3"):
        create_model(NAME, config=3)
    with pytest.raises(BoltValueError, match="width must be an integer of at least 1; got 0"):
        create_model(NAME, config=DigitsConfig(), width=0)


def test_all_errors_have_the_roots_of_core():
    assert issubclass(BoltError, LeydenError)
    assert issubclass(BoltValueError, ValueError)


def test_another_distribution_joins_by_an_entry_point(world, a_bolt):
    world.distribution("guesses", {"guesser": "guesses:Model"}, guesses=a_bolt("guesser"))
    found = world.run("""
        info = describe("guesser")
        model = create_model("guesser", size=5)
        answer([info.distribution, info.version, info.summary, info.task, model.layer.in_features,
                list_models(task="guessing")])
    """)
    assert found == ["guesses", "1.5", "Guesses.", "guessing", 5, ["guesser"]]


def test_two_distributions_with_one_name_are_an_error_that_names_both(world, a_bolt):
    world.distribution("first-guesses", {"guesser": "one:Model"}, one=a_bolt("guesser", "first"))
    world.distribution("Second.Guesses", {"guesser": "two:Model"}, two=a_bolt("guesser", "second"))
    found = world.run("""
        made, described = error_of(create_model, "guesser"), error_of(describe, "guesser")
        answer([made, described, list_models(), [describe(n).task for n in list_models("*:guesser")],
                list_models(task="second"), create_model("second-guesses:guesser").config.size])
    """)
    for kind, message in found[:2]:
        assert kind == "BoltError"
        assert "'guesser' is registered twice, by first-guesses (one:Model) and second-guesses (two:Model)" in message
        assert "'first-guesses:guesser' or 'second-guesses:guesser'" in message
    names = [NAME, "first-guesses:guesser", "second-guesses:guesser"]
    assert found[2:] == [names, ["first", "second"], ["second-guesses:guesser"], 3]


def test_one_distribution_that_registers_a_name_twice_is_named(world, a_bolt):
    world.distribution("guesses", {"guesser": "one:Model\nguesser = two:Model"}, one=a_bolt("guesser"))
    kind, message = world.run("answer(error_of(create_model, 'guesser'))")
    assert kind == "BoltError"
    assert "by guesses (one:Model) and guesses (two:Model)" in message


def test_a_plug_in_can_not_take_the_name_of_a_built_in(world, a_bolt):
    world.distribution("aaa-evil", {NAME: "evil:Model"}, evil=a_bolt(NAME))
    found = world.run(f"""
        model = create_model("{NAME}", width=4)
        answer([type(model).__name__, describe("{NAME}").distribution, list_models(), "evil" in sys.modules,
                describe("aaa-evil:{NAME}").task])
    """)
    assert found == ["DigitsClassifier", "leyden-bolts", ["aaa-evil:digits_classifier", NAME], False, "guessing"]


# What is wrong with a plug-in: where its entry point points, what its module holds, and the reason to be shown.
BREAKAGES = {
    "importing": ("{m}:Model", "import a_package_not_there", "ModuleNotFoundError: No module named 'a_package_not_"),
    "syntax": ("{m}:Model", "def (", "SyntaxError: "),
    "leaving": ("{m}:Model", "raise SystemExit('no')", "SystemExit: no"),
    "empty": ("{m}:Model", "", "AttributeError: module 'empty_module' has no attribute 'Model'"),
    "absent": ("nowhere:Model", "", "ModuleNotFoundError: No module named 'nowhere'"),
    "malformed": ("not a place", "", "can not be imported from not a place"),
    "undeclared": ("{m}:Model", "class Model: pass", "not declared with @bolt"),
    "child": ("{m}:Model", "from leyden.bolts import DigitsClassifier\nclass Model(DigitsClassifier): pass",
              "not declared with @bolt"),
    "misnamed": ("leyden.bolts.digits_classifier:DigitsClassifier", "", "declares to be 'digits_classifier'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory, make_world):
    """What a process with all the broken plug-ins says of each, and of the rest."""
    world = make_world(tmp_path_factory.mktemp("broken"))
    for name, (target, code, _) in BREAKAGES.items():
        module = f"{name}_module"
        world.distribution(f"{name}-plug-in", {name: target.format(m=module)}, **{module: code})
    return world.run(f"""
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list_models(task="image classification")
        broken = [name for name in list_models() if name != "{NAME}"]
        infos = {{name: describe(name) for name in broken}}
        answer({{
            "listed": list_models(), "found": found, "warnings": [str(w.message) for w in caught],
            "made": type(create_model("{NAME}", width=4)).__name__,
            "reasons": {{name: info.broken for name, info in infos.items()}},
            "shown": {{name: str(info) for name, info in infos.items()}},
            "errors": {{name: error_of(create_model, name) for name in broken}},
        }})
    """)


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_plug_in_is_shown_with_its_reason(name, broken):
    reason = broken["reasons"][name]
    assert BREAKAGES[name][2] in reason
    assert f"{name}-plug-in" in reason
    assert broken["shown"][name] == f"{name} ({name}-plug-in 1.5): broken: {reason}"
    assert broken["errors"][name] == ["BrokenBoltError", reason]


def test_broken_plug_ins_leave_the_rest_alone(broken):
    assert broken["listed"] == sorted([NAME, *BREAKAGES])
    assert (broken["found"], broken["made"]) == ([NAME], "DigitsClassifier")
    assert len(broken["warnings"]) == len(BREAKAGES)
    for message in broken["warnings"]:
        assert message.startswith("[LY-R001] left out of the list of models: ")
