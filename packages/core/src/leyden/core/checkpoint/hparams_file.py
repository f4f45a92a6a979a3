# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters from a file of their own: YAML as loggers write it, or a CSV table of names and values."""

from __future__ import annotations

import ast
import csv
import os
from pathlib import Path
from typing import Any

import yaml

from leyden.core.errors import CheckpointError, MisconfigurationValueError, warn


def load_hparams_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read hyper-parameters; tags that name Python objects are refused.

    Args:
        path: A file that ends in ``.yaml``, ``.yml`` or ``.csv``; a missing one counts as empty, with a warning.

    Raises:
        MisconfigurationValueError: The file has another ending.
        CheckpointError: The file can not be read as plain data by name.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from leyden.core.checkpoint.hparams_file import load_hparams_file
        >>> file = Path(tempfile.mkdtemp()) / "hparams.yaml"
        >>> _ = file.write_text("lr: 0.1")
        >>> load_hparams_file(file)
        {'lr': 0.1}
    """
    file = Path(path)
    ending = file.suffix.lower()
    if ending not in (".csv", ".yml", ".yaml"):
        raise MisconfigurationValueError(f".csv, .yml or .yaml is required for `hparams_file`; got {path}.")
    if not file.exists():
        warn("LY-H004", f"Missing Tags: {path}. There are no hyper-parameters to load.")
        return {}
    text = file.read_text(encoding="utf-8")
    if ending == ".csv":
        return {row[0]: _value(row[1]) for row in list(csv.reader(text.splitlines()))[1:] if len(row) > 1}
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CheckpointError(f"the hyper-parameters in {path} can not be read as plain YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; hyper-parameters have names.")
    return content or {}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
