# SPDX-License-Identifier: Apache-2.0
"""How this Python was started, taken apart so that it can be started again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_WITH_VALUE = {"-W", "-X", "--check-hash-based-pycs"}
# these ask for a prompt or for a look at the interpreter, which several processes can not give
_DROPPED = {"-i", "-q", "-v", "-V", "-h", "-?"}


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the command line of a Python into the interpreter's flags and the program.

    Args:
        arguments: What stands behind ``python``.

    Returns:
        The flags, each by itself, and the program: a script or ``-m`` and a module, or ``-c`` and code, with its own
        arguments. The program is empty at a prompt.

    Examples:
        >>> from leyden.core.launch.command import split_command
        >>> split_command(["-uX", "dev", "train.py", "--lr", "0.1"])
        (['-u', '-X', 'dev'], ['train.py', '--lr', '0.1'])
        >>> split_command(["-um", "package.train", "-x"])
        (['-u'], ['-m', 'package.train', '-x'])
    """
    flags: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "-" or not word.startswith("-"):
            return flags, [word, *rest]
        if word.startswith("--"):
            flags += [word, rest.pop(0)] if word in _WITH_VALUE and rest else [word]
            continue
        letters = word[1:]
        while letters:
            flag, letters = f"-{letters[0]}", letters[1:]
            if flag in ("-m", "-c"):
                return flags, [flag, *([letters] if letters else []), *rest]
            if flag in _WITH_VALUE:
                flags += [flag, letters or rest.pop(0)]
                letters = ""
            elif flag not in _DROPPED:
                flags.append(flag)
    return flags, []


def module_command(module: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a module of this package.

    Args:
        module: Its name.
        flags: Flags of the interpreter.
    """
    # without -P a file in the working folder could stand in the way of a module of the standard library
    return [sys.executable, *flags, *([] if "-P" in flags else ["-P"]), "-m", f"leyden.core.launch.{module}"]


def keeps_path_safe(flags: Sequence[str]) -> bool:
    """Return whether a program started with these flags would not find modules beside itself."""
    ignores_environment = "-E" in flags or "-I" in flags
    return "-P" in flags or "-I" in flags or bool(not ignores_environment and os.environ.get("PYTHONSAFEPATH"))
