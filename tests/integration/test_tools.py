"""The developers' tools judge what they are given as their documentation says."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch):
    """Import a module of a tool, as the tool itself does: by its bare name, from its own folder."""
    names = []

    def load(folder: str, name: str):
        monkeypatch.syspath_prepend(ROOT / "tools" / folder)
        names.append(name)
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def stubs(tool, tmp_path):
    """Write the sources of a package and render its public API."""
    module = tool("api", "stubs")

    def render(**files: str) -> dict[str, str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "leyden" / "toy"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return module.render(module.load("leyden.toy", [folder.parents[1]]))

    return render


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool from the root of the repository."""
    command = [sys.executable, f"tools/{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


INIT = """
from typing import TYPE_CHECKING
__all__ = ["Thing", "make"]
if TYPE_CHECKING:
    from leyden.toy.things import Thing as Thing
    from leyden.toy.things import make as make
"""
THINGS = """
class _Named:
    def rename(self, name: str) -> None: ...

class Thing(_Named):
    size: int = 3
    def __init__(self, name: str, *, strict: bool = True) -> None:
        self.hidden = name
    def _private(self) -> None: ...
    @property
    def weight(self) -> float: ...
    @classmethod
    def load(cls, path: str, /, *args: int, **options: int) -> "Thing": ...

def make(count: int = 1) -> Thing: ...
def unlisted() -> None: ...
"""


def test_a_snapshot_holds_the_public_names_with_their_signatures(stubs):
    (text,) = stubs(__init__=INIT, things=THINGS).values()
    for line in (
        "class Thing:",
        "    def __init__(self, name: str, *, strict: bool = True) -> None: ...",
        "    def load(cls, path: str, /, *args: int, **options: int) -> Thing: ...",
        "    def rename(self, name: str) -> None: ...",
        "    size: int = 3",
        "    def weight(self) -> float: ...",
        "def make(count: int = 1) -> Thing: ...",
    ):
        assert line in text.splitlines()
    assert "private" not in text
    assert "_Named" not in text
    assert "hidden" not in text
    assert "unlisted" not in text


def test_a_snapshot_does_not_depend_on_the_order_in_the_sources(stubs):
    cut = THINGS.index("def make")
    head, tail = THINGS[:cut], THINGS[cut:]
    assert stubs(__init__=INIT, things=head + tail) == stubs(__init__=INIT, things=tail + head)


def test_a_name_that_all_lists_and_the_source_lacks_is_refused(stubs):
    with pytest.raises(SystemExit, match="Nope"):
        stubs(__init__='__all__ = ["Nope"]')


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("def make(count: int = 1)", "def build(count: int = 1)", "make"),
        ("count: int = 1", "number: int = 1", "make(count)"),
        ("count: int = 1", "count: int", "make(count)"),
        ("def rename(self", "def _rename(self", "Thing.rename"),
        ("strict: bool = True", "strict: bool = False", "Thing.__init__(strict)"),
        ("size: int", "_size: int", "Thing.size"),
    ],
)
def test_what_breaks_the_users_code_is_found(stubs, tool, old, new, named):
    before = stubs(__init__=INIT, things=THINGS)
    init = INIT.replace("make", "build") if "build" in new else INIT
    after = stubs(__init__=init, things=THINGS.replace(old, new))
    broken = tool("api", "changes").breakages(before, after)
    assert [line for line in broken if line.startswith(f"leyden.toy.{named}: ")], broken


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("strict: bool = True", "strict: bool = True, fast: bool = False"),
        ("def unlisted()", "def renamed()"),
        ("size: int = 3", "size: int = 3\n    colour: str = 'red'"),
    ],
)
def test_what_only_adds_is_no_incompatible_change(stubs, tool, old, new):
    before = stubs(__init__=INIT, things=THINGS)
    after = stubs(__init__=INIT, things=THINGS.replace(old, new))
    assert tool("api", "changes").breakages(before, after) == []


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ("## 0.0.2 (unreleased)\n\n## 0.0.1 - 2026-01-01\n", []),
        ("## 0.1.0 (unreleased)\n\n", []),
        ("## 0.1.1 (unreleased)\n\n- `make` is gone\n\n## 0.1.0 - 2026-01-01\n", ["needs version 0.2.0"]),
        ("## 0.2.0 (unreleased)\n\n- better\n\n## 0.1.0 - 2026-01-01\n", ["does not mention `make`"]),
        ("## 0.2.0 (unreleased)\n\n- `make` is gone\n\n## 0.1.0 - 2026-01-01\n", []),
        ("## 1.3.0 (unreleased)\n\n- `make` is gone\n\n## 1.2.0 - 2026-01-01\n", ["needs version 2.0.0"]),
    ],
)
def test_an_incompatible_change_needs_a_version_and_a_line_in_the_changelog(tool, tmp_path, sections, words):
    path = tmp_path / "CHANGELOG.md"
    path.write_text(f"# Changelog\n\n{sections}")
    objections = tool("api", "changes").Changelog.read(path).objections(["leyden.toy.make: Public object was removed"])
    assert len(objections) == len(words)
    assert all(word in line for word, line in zip(words, objections, strict=True))


def test_the_committed_snapshots_are_those_of_today():
    done = run("api")
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [line for line in done.stdout.splitlines() if line.startswith("leyden.")]
    assert len(reports) == 5


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (["leyden/toy/__init__.py", "leyden/toy/py.typed"], None),
        (["leyden/toy/__init__.py"], "py.typed is missing"),
        (["leyden/toy/__init__.py", "leyden/toy/py.typed", "leyden/__init__.py"], "hide the other packages"),
        (["leyden/toy/__init__.py", "leyden/toy/py.typed", "leyden/other/x.py"], "leyden/other/x.py does not belong"),
        (["leyden/toy/__init__.py", "leyden/toy/py.typed", "leyden/toy/tests/test_x.py"], "is a test"),
    ],
)
def test_a_wheel_that_holds_too_much_or_too_little_is_named(tool, files, word):
    wheel = tool("isolate", "wheels").Wheel(
        "toy", Path("toy.whl"), "0.1", (), (*files, "leyden_toy-0.1.dist-info/WHEEL")
    )
    defects = "\n".join(wheel.defects())
    assert defects == "" if word is None else word in defects


def test_a_table_of_the_bench_is_markdown(tool):
    lines = tool("bench", "report").table(["what", "us"], [["a step", "12.5"], ["a longer name", "3.0"]]).splitlines()
    assert lines == [
        "| what          |   us |",
        "|---------------|-----:|",
        "| a step        | 12.5 |",
        "| a longer name |  3.0 |",
    ]


@pytest.mark.parametrize("name", ["isolate", "api", "bench"])
def test_a_tool_says_how_it_is_used(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"tools/{name}" in done.stdout
