# SPDX-License-Identifier: Apache-2.0
"""Runs a program as a rank: guards first, then does what ``python program`` would."""

from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

from leyden.core.launch.rank import guard_rank, write_error


def main(arguments: Sequence[str]) -> None:
    """Run a program as the main module of this process.

    Args:
        arguments: ``safe`` or ``beside``: whether modules beside the program are not found; then the program, a script
            or ``-m`` and a module, and its arguments.
    """
    guard_rank()
    plain_hook = sys.excepthook
    path, *program = arguments
    try:
        if program[0] == "-m":
            _run_module(program[1], program[2:], beside=path == "beside")
        else:
            _run_script(program, beside=path == "beside")
    except SystemExit as exit:
        if exit.code:
            write_error(exit, code=exit.code if isinstance(exit.code, int) else 1)
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported and ends this process
        raise SystemExit(_failed(error, plain_hook)) from None


def _run_module(name: str, arguments: Sequence[str], *, beside: bool) -> None:
    from importlib.util import find_spec

    sys.argv = ["-m", *arguments]
    if beside:
        # not the path library: this is what the interpreter itself puts there
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = find_spec(f"{name}.__main__")
    loader: Any = spec.loader if spec is not None else None
    code = loader.get_code(spec.name) if spec is not None and loader is not None else None
    if spec is None or code is None:
        raise ImportError(f"No module named {name}")
    sys.argv[0] = spec.origin or name
    _run(code, __spec__=spec, __loader__=loader, __package__=spec.parent, __file__=spec.origin, __cached__=spec.cached)


def _run_script(program: Sequence[str], *, beside: bool) -> None:
    from importlib.machinery import SourceFileLoader

    script = program[0]
    sys.argv = list(program)
    if not os.path.isfile(script) or script.endswith((".pyz", ".zip", ".pyc")):  # noqa: PTH113
        runpy.run_path(script, run_name="__main__")
        return
    if beside:
        sys.path.insert(0, os.path.dirname(os.path.realpath(script)))  # noqa: PTH120
    path = os.path.abspath(script)  # noqa: PTH100
    with io.open_code(path) as source:
        code = compile(source.read(), path, "exec", dont_inherit=True)
    _run(code, __file__=path, __loader__=SourceFileLoader("__main__", path), __package__=None, __cached__=None)


def _run(code: CodeType, **attributes: Any) -> None:
    # under its own name, so that pickle and the processes of multiprocessing find what it defines
    module = ModuleType("__main__")
    module.__dict__.update(attributes, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102


def _failed(error: BaseException, plain_hook: Any) -> int:
    """Report what the program raised, without the frames of this file, and return the exit code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    error.__traceback__ = frames
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    # the agent prints the one traceback that matters; a hook of the program's own prints itself
    own = sys.excepthook is not plain_hook and not str(sys.excepthook.__module__).startswith("torch.")
    write_error(error, shown=own, code=code)
    if own:
        sys.excepthook(type(error), error, frames)
    return code


if __name__ == "__main__":
    main(sys.argv[1:])
