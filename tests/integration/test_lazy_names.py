"""Each package says its public names three times: for checkers, for `import *`, and for the interpreter. They agree."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {path.name: path for path in ROOT.glob("packages/*/src/leyden/*") if path.is_dir()}


def dotted(path: Path) -> str:
    """The import name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts[3:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Init:
    """An ``__init__.py`` with lazy names, read without importing it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = dotted(path)
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        branches = [node for node in self.tree.body if isinstance(node, ast.If) and is_type_checking(node.test)]
        self.lazy = bool(branches) and bool(branches[0].orelse)
        self.typed = {} if not branches else dict(self.imports(branches[0].body))
        self.table = {} if not branches else dict(self.entries(branches[0].orelse))
        self.eager = dict(self.imports(self.tree.body))

    def imports(self, body: list[ast.stmt]):
        """Public names and the modules they are imported from."""
        for node in body:
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                module = node.module or ""
                if node.level:
                    base = self.name.rsplit(".", node.level - 1)[0]
                    module = f"{base}.{module}" if module else base
                for alias in node.names:
                    if alias.asname == alias.name:
                        yield alias.name, (f"{module}.{alias.name}" if module == self.name else module)

    def entries(self, body: list[ast.stmt]):
        """Names in the lazy table and the modules they are taken from; a submodule is its own."""
        for node in body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Dict):
                for name, module in ast.literal_eval(value).items():
                    yield name, module if module.startswith("leyden.") else f"{self.name}.{module.lstrip('.') or name}"
            elif isinstance(value, ast.Set | ast.Tuple | ast.List):
                for name in ast.literal_eval(value):
                    yield name, f"{self.name}.{name}"
            elif isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Set):
                for name in ast.literal_eval(value.args[0]):
                    yield name, f"{self.name}.{name}"

    @property
    def all(self) -> list[str]:
        """The literal ``__all__``."""
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return ast.literal_eval(node.value)
        return []


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


INITS = [Init(path) for source in SOURCES.values() for path in sorted(source.rglob("__init__.py"))]
LAZY = [init for init in INITS if init.lazy]
PUBLIC = [init for init in INITS if init.all]


def test_every_package_has_lazy_names():
    assert {init.name for init in LAZY} >= {f"leyden.{name}" for name in SOURCES}


@pytest.mark.parametrize("init", LAZY, ids=lambda init: init.name)
def test_the_three_lists_of_names_agree(init):
    lazy = {name: module for name, module in init.table.items() if name != "__version__"}
    assert lazy == init.typed
    extra = {name for name in init.all if name not in lazy and name not in init.eager}
    assert extra <= {"__version__"}
    assert set(lazy) <= set(init.all)


@pytest.mark.parametrize("init", PUBLIC, ids=lambda init: init.name)
def test_all_is_a_literal_list_without_repetition_whose_names_resolve(init):
    package = importlib.import_module(init.name)
    assert len(init.all) == len(set(init.all))
    assert package.__all__ == init.all
    for name in init.all:
        assert getattr(package, name) is not None
        assert name in dir(package)


@pytest.mark.parametrize("init", LAZY, ids=lambda init: init.name)
def test_no_public_name_is_also_a_module_of_another_thing(init):
    # After `import leyden.x.name` the attribute is the module, and the lazy table is never asked.
    package = importlib.import_module(init.name)
    folder = init.path.parent
    for name in init.all:
        if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists():
            assert isinstance(getattr(package, name), types.ModuleType), f"{init.name}.{name} is hidden by its module"


@pytest.mark.parametrize("init", LAZY, ids=lambda init: init.name)
def test_a_misspelt_name_is_refused_and_the_near_one_is_named(init):
    near = max(init.all, key=len)
    package = importlib.import_module(init.name)
    misspelt = near[:-2] + near[-1]
    with pytest.raises(AttributeError, match=misspelt):
        getattr(package, misspelt)
    code = f"import {init.name} as package; package.{misspelt}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"'{near}'" in done.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_a_package_knows_its_version(name):
    package = importlib.import_module(f"leyden.{name}")
    assert package.__version__ == importlib.metadata.version(f"leyden-{name}")


@pytest.mark.parametrize("name", SOURCES)
def test_a_package_imports_its_own_names_from_the_modules_that_define_them(name):
    # import-linter does not see through lazy names, so an import through them would hide an arrow.
    tables = {init.name: init.table for init in LAZY if init.name.split(".")[1] == name}
    for path in sorted(SOURCES[name].rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in tables:
                own = {name for name, module in tables[node.module].items() if module != f"{node.module}.{name}"}
                through = own & {alias.name for alias in node.names}
                assert not through, f"{path.name}:{node.lineno} imports {through} through {node.module}"
