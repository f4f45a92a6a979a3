"""Every block of Python in the documentation runs."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")])
BLOCK = re.compile(r"^(?P<indent> *)```python *\n(?P<code>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The blocks of a page, each moved to its line, so that a traceback names the place in the page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        found.append("\n" * line + textwrap.dedent(match["code"]))
    return found


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.fixture
def page_module(tmp_path, monkeypatch):
    """A module for the page's names, in an empty folder, with what pages may change put back afterwards."""
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield module
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_one_after_the_other(page, page_module):
    for block in blocks(page):
        exec(compile(block, str(page.relative_to(ROOT)), "exec"), page_module.__dict__)  # noqa: S102


def test_no_block_of_python_hides_behind_another_spelling_of_the_fence():
    for page in PAGES:
        fences = re.findall(
            r"^ *(?:```+|~~~+) *(py|python3|Python|pycon|python[ \t]+\S+)\b", page.read_text("utf-8"), re.MULTILINE
        )
        assert not fences, f"{page}: write ```python, so that the block is run; found {fences}"
