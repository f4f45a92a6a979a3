import ast
from pathlib import Path

import pytest

import leyden.core.loggers
from leyden.core.errors import MisconfigurationValueError
from leyden.core.loggers import CSVLogger, DummyLogger, find_logger

PLUG_IN = """
from leyden.core.loggers import CSVLogger
class Mine(CSVLogger):
    requires = ("a_module_that_is_not_there",)
"""


@pytest.fixture
def install(tmp_path):
    """Lay out an installed distribution with loggers among its entry points."""

    def begin(distribution, entries, code=PLUG_IN):
        name = distribution.replace("-", "_")
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[leyden.loggers]\n" + "\n".join(entries))
        return {"PYTHONPATH": str(tmp_path)}

    return begin


def test_own_loggers_are_found_by_name():
    assert find_logger("csv") is CSVLogger
    assert find_logger("CSV") is CSVLogger
    assert find_logger("dummy") is DummyLogger


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MisconfigurationValueError, match=r"csv.*got 'tensorbord'"):
        find_logger("tensorbord")


def test_a_third_party_adds_a_logger(install, run_code):
    environment = install("their-logger", ["theirs = their_logger:Mine", "csv = their_logger:Mine"])
    answer = run_code(
        """
        from leyden.core.loggers import find_logger
        print(find_logger("theirs").__name__, find_logger("csv").__name__)
        """,
        env=environment,
    )
    assert answer == "Mine CSVLogger"


def test_a_name_of_two_distributions_names_both(install, run_code):
    install("one-logger", ["theirs = one_logger:Mine"])
    environment = install("other-logger", ["theirs = other_logger:Mine"])
    answer = run_code(
        """
        from leyden.core.errors import MisconfigurationException
        from leyden.core.loggers import find_logger
        try:
            find_logger("theirs")
        except MisconfigurationException as error:
            print(error)
        """,
        env=environment,
    )
    assert "one-logger and other-logger" in answer


def test_the_default_is_csv_where_tensorboard_is_missing(run_code, tmp_path):
    answer = run_code(
        """
        import sys
        sys.modules["tensorboard"] = None
        from leyden.core.loggers import default_logger
        logger = default_logger(sys.argv[1], name="digits", version=2)
        print(type(logger).__name__, logger.log_dir)
        """,
        tmp_path,
    )
    assert answer == f"CSVLogger {tmp_path}/digits/version_2"


def test_a_logger_whose_requirements_are_missing_is_not_the_default(install, run_code):
    # Only where leyden-loggers is not installed is there no other logger of this name.
    environment = install("their-logger", ["tensorboard = their_logger:Mine"])
    answer = run_code(
        """
        import importlib.metadata as metadata
        import leyden.core.loggers.choice as choice
        found = [e for e in metadata.entry_points(group="leyden.loggers") if e.value.startswith("their")]
        choice._registered = lambda: {"tensorboard": found}
        print(type(choice.default_logger(".")).__name__, choice.missing(found[0].load()))
        """,
        env=environment,
    )
    assert answer == "CSVLogger ['a_module_that_is_not_there']"


def test_importing_the_loggers_imports_no_client(run_code):
    answer = run_code(
        """
        import sys
        import leyden.core.loggers
        assert "torch" not in sys.modules
        from leyden.core.loggers import CSVLogger, DummyLogger, default_logger, find_logger
        default_logger(".")
        heavy = {"tensorboard", "tensorflow", "wandb", "mlflow", "pandas", "matplotlib", "google"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
        """
    )
    assert answer == "[]"


def test_the_loggers_of_core_stand_on_the_ground_floor():
    asked = set()
    for path in Path(leyden.core.loggers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("leyden."):
                asked.add(node.module)
    below = {module for module in asked if not module.startswith("leyden.core.loggers.")}
    assert below == {"leyden.core.errors", "leyden.core.interfaces", "leyden.core.ranks"}
