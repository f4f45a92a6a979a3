import json
import os
import subprocess
import sys
import textwrap

import pytest
import sklearn  # noqa: F401 - importing it sets environment variables, which no test is to be blamed for

PRELUDE = """
    import json, sys
    from leyden.bolts import create_model, describe, list_models

    def answer(value):
        print(json.dumps(value))

    def error_of(function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            return [type(error).__name__, str(error)]
"""


class World:
    """A folder that is on the path of fresh processes, with distributions made for one test."""

    def __init__(self, folder):
        self.folder = folder

    def distribution(self, name, entries, **modules):
        """Install a distribution: metadata with entry points in the group of bolts, and its modules."""
        info = self.folder / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [f"{bolt} = {target}" for bolt, target in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[leyden.bolts]", *lines, ""]))
        for module, code in modules.items():
            (self.folder / f"{module}.py").write_text(textwrap.dedent(code))

    def run(self, code):
        """Run code in a fresh process, where ``answer(value)`` hands a plain value back."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture(scope="session")
def make_world():
    return World


@pytest.fixture
def a_bolt():
    """The source of a module with one bolt, ``Model``."""

    def source(name, task="guessing"):
        return f"""
            from dataclasses import dataclass
            import torch
            from leyden.bolts import bolt
            from leyden.core import LightningModule

            @dataclass(frozen=True, kw_only=True)
            class Config:
                size: int = 3

            @bolt("{name}", task="{task}", paper="A. Guess, 1999", licence="MIT", config=Config)
            class Model(LightningModule):
                '''Guesses.

                More about it.
                '''

                def __init__(self, config):
                    super().__init__()
                    self.config = config
                    self.layer = torch.nn.Linear(config.size, 1)
        """

    return source
