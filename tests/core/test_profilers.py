"""Profilers: what they record, what they report, and where the report goes."""

import logging
import os
import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn

from leyden.core.errors import LeydenWarning, MisconfigurationException, MisconfigurationTypeError
from leyden.core.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from leyden.core.profilers.choice import find_profiler

WRITING = [SimpleProfiler, AdvancedProfiler]


def record(profiler, *actions):
    for action in actions:
        with profiler.profile(action):
            torch.ones(2) + 1
    return profiler


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("simple", SimpleProfiler),
        ("Simple", SimpleProfiler),
        ("advanced", AdvancedProfiler),
        ("pytorch", PyTorchProfiler),
        (PassThroughProfiler(), PassThroughProfiler),
    ],
)
def test_a_profiler_by_name_or_as_it_is(given, kind):
    assert type(find_profiler(given)) is kind
    assert isinstance(find_profiler(given), Profiler)


def test_nothing_an_unknown_name_and_no_profiler():
    assert find_profiler(None) is None
    with pytest.raises(MisconfigurationException, match=r"it can only be one of \['simple', 'advanced', 'pytorch'\]"):
        find_profiler("fast")
    with pytest.raises(MisconfigurationTypeError, match="`profiler` must be None, a profiler or the name of one"):
        find_profiler(42)


def test_a_profiler_of_one_s_own_needs_a_start_and_a_stop():
    with pytest.raises(TypeError, match="abstract"):
        Profiler()


def test_every_call_is_measured_and_nested_actions_are_apart():
    profiler = SimpleProfiler()
    with profiler.profile("outer"):
        record(profiler, "inner", "inner")
    durations = profiler.recorded_durations
    assert {action: len(times) for action, times in durations.items()} == {"inner": 2, "outer": 1}
    assert sum(durations["inner"]) <= durations["outer"][0]


def test_an_action_that_raises_is_measured_too():
    profiler = SimpleProfiler()
    with pytest.raises(KeyError), profiler.profile("load"):
        raise KeyError("mine")
    assert len(profiler.recorded_durations["load"]) == 1


def test_beginning_twice_and_ending_what_did_not_begin_are_errors():
    profiler = SimpleProfiler()
    profiler.start("load")
    with pytest.raises(ValueError, match="Attempted to start load which has already started"):
        profiler.start("load")
    for kind in WRITING:
        with pytest.raises(ValueError, match=r"stop recording an action \(none\) which was never started"):
            kind().stop("none")


def test_the_report_has_the_dearest_action_first():
    profiler = SimpleProfiler()
    profiler.recorded_durations |= {"cheap": [0.1, 0.1], "dear": [3.0]}
    lines = [[cell.strip() for cell in line.split("|")] for line in profiler.summary().splitlines() if "|" in line]
    assert lines[0] == ["Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %"]
    assert [line[0] for line in lines[1:]] == ["Total", "dear", "cheap"]
    assert lines[3][1:4] == ["0.1", "2", "0.2"]


def test_a_short_report_leaves_calls_and_shares_out():
    short = record(SimpleProfiler(extended=False), "load").summary()
    assert "load" in short
    assert "Num calls" not in short
    assert "Percentage" not in short


@pytest.mark.parametrize("kind", [SimpleProfiler, AdvancedProfiler, PyTorchProfiler])
def test_the_report_is_written_to_a_file_named_after_stage_name_and_rank(kind, tmp_path):
    more = {"schedule": None} if kind is PyTorchProfiler else {}
    profiler = kind(dirpath=tmp_path / "new" / "folder", filename="profile", **more)
    profiler.setup("fit", local_rank=1)
    record(profiler, "load").describe()
    text = (tmp_path / "new" / "folder" / "fit-profile-1.txt").read_text()
    assert text.startswith("FIT Profiler Report")


def test_a_folder_that_is_not_given_is_that_of_the_run(tmp_path):
    profiler = SimpleProfiler(filename="profile")
    profiler.setup("test", log_dir=str(tmp_path))
    record(profiler, "load").describe()
    assert os.listdir(tmp_path) == ["test-profile.txt"]


def test_without_a_file_name_the_report_is_shown(capsys, caplog):
    record(SimpleProfiler(), "load").describe()
    assert "Profiler Report" in capsys.readouterr().err
    with caplog.at_level(logging.INFO, logger="leyden.core.profilers"):
        record(SimpleProfiler(), "load").describe()
    assert "Profiler Report" in caplog.text
    assert capsys.readouterr().err == ""


def test_other_ranks_show_nothing(capsys):
    profiler = SimpleProfiler()
    profiler.setup("fit", local_rank=1)
    record(profiler, "load").describe()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [SimpleProfiler, AdvancedProfiler, PyTorchProfiler, PassThroughProfiler])
def test_a_profiler_can_be_copied_and_pickled(kind, capsys):
    profiler = record(kind(), "load")
    assert type(deepcopy(profiler)) is type(pickle.loads(pickle.dumps(profiler))) is kind
    profiler.describe()


def test_functions_are_listed_for_the_action_they_ran_in():
    def inside():
        return sorted([2, 1])

    profiler = AdvancedProfiler()
    with profiler.profile("outer"):
        with profiler.profile("inner"):
            inside()
        len([])
    sections = profiler.summary().split("Profile stats for: ")
    outer, inner = sections[1], sections[2]
    assert "(inside)" in inner
    assert "(inside)" not in outer
    assert "built-in method builtins.len" in outer, "the outer action goes on once the inner one ended"


def test_the_number_of_functions_can_be_limited():
    def lines(**arguments):
        return len(record(AdvancedProfiler(**arguments), "load").summary().splitlines())

    assert lines(line_count_restriction=1) < lines()


def test_files_for_pstats_have_names_that_every_system_takes(tmp_path):
    import pstats

    record(AdvancedProfiler(dirpath=tmp_path, filename="p", dump_stats=True), 'a/b\\c:"d"').describe()
    (found,) = tmp_path.glob("*.prof")
    assert found.name == "p-a_b_c_d_.prof"
    assert pstats.Stats(str(found)).total_calls > 0


# -- PyTorchProfiler ---------------------------------------------------------------------------------------------------


class Run:
    num_training_batches = 100
    num_val_batches = num_sanity_val_batches = num_test_batches = num_predict_batches = [100]


@pytest.fixture
def model():
    made = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1)))
    made.trainer = Run()
    return made


def steps(profiler, model, kind, count):
    for _ in range(count):
        with profiler.profile(f"[Strategy]Any.{kind}"):
            model(torch.rand(1, 2))


def test_operators_actions_and_modules_are_recorded(model, tmp_path):
    profiler = PyTorchProfiler(tmp_path, schedule=None)
    profiler.watch(model)
    steps(profiler, model, "test_step", 2)
    profiler.describe()
    names = {event.name for event in profiler.function_events}
    assert "aten::addmm" in names
    assert "[pl][profile][Strategy]Any.test_step" in names
    assert "[pl][module]torch.nn.modules.linear.Linear: 1.0" in names


def test_module_names_can_be_left_out_and_no_hook_stays(model, tmp_path):
    for named in (True, False):
        profiler = PyTorchProfiler(tmp_path, schedule=None, record_module_names=named)
        profiler.watch(model)
        steps(profiler, model, "test_step", 1)
        profiler.teardown("test")
        assert any("[module]" in event.name for event in profiler.function_events) is named
        assert not model[0]._forward_hooks


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_by_default_each_kind_of_step_has_a_trace_of_three_steps(model, tmp_path):
    profiler = PyTorchProfiler(dirpath=tmp_path)
    profiler.watch(model)
    for _ in range(10):
        steps(profiler, model, "training_step", 1)
        steps(profiler, model, "validation_step", 1)
    profiler.teardown("fit")
    traces = sorted(name.split(".")[1] for name in os.listdir(tmp_path))
    assert traces == ["training_step", "validation_step"]


def test_a_run_that_is_shorter_than_the_schedule_is_recorded_whole(model, tmp_path):
    model.trainer.num_training_batches = 3
    profiler = PyTorchProfiler(dirpath=tmp_path)
    profiler.watch(model)
    with pytest.warns(LeydenWarning, match="not enough steps to properly record traces"):
        steps(profiler, model, "training_step", 3)
    profiler.describe()
    assert "aten::addmm" in {event.name for event in profiler.function_events}


def test_a_schedule_of_one_s_own_and_what_is_none(model):
    with pytest.raises(MisconfigurationException, match="Schedule should be a callable"):
        PyTorchProfiler(schedule=5)
    with pytest.raises(MisconfigurationException, match=r"Schedule should return a `torch.profiler.ProfilerAction`"):
        PyTorchProfiler(schedule=lambda step: "now")
    ready = []
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=1)
    profiler = PyTorchProfiler(schedule=schedule, on_trace_ready=ready.append)
    steps(profiler, model, "test_step", 4)
    profiler.teardown("test")
    assert len(ready) == 1


def test_a_schedule_that_never_records_has_no_report(model, capsys):
    profiler = PyTorchProfiler(schedule=torch.profiler.schedule(wait=50, warmup=1, active=1))
    steps(profiler, model, "test_step", 2)
    profiler.describe()
    assert capsys.readouterr().err == ""


def test_traces_need_a_folder(model):
    profiler = PyTorchProfiler(schedule=torch.profiler.schedule(wait=0, warmup=1, active=1))
    with pytest.warns(LeydenWarning, match="failed to export trace as `dirpath` is None"):
        steps(profiler, model, "test_step", 3)
    profiler.teardown("test")


def test_arguments_of_the_table():
    assert "aten::add" in record(PyTorchProfiler(schedule=None, sort_by_key="count", row_limit=-1), "add").summary()
    with pytest.raises(MisconfigurationException, match=r"Found sort_by_key: colour. Should be within"):
        PyTorchProfiler(sort_by_key="colour")
    with pytest.raises(KeyError, match=r"row_limit. This is already a positional argument of the Profiler"):
        PyTorchProfiler(table_kwargs={"row_limit": 2})
    with pytest.raises(KeyError, match=r"Found invalid table_kwargs key: colour. Should be within"):
        PyTorchProfiler(table_kwargs={"colour": 2})
