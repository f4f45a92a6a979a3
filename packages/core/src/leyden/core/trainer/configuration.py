# SPDX-License-Identifier: Apache-2.0
"""What the loggers are told of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from leyden.core.errors import MisconfigurationRuntimeError
from leyden.core.loggers.file_logger import FileLogger
from leyden.core.session import Session


def log_configuration(s: Session) -> None:
    """Open the loggers, and give them the hyper-parameters of module and data module.

    Raises:
        MisconfigurationRuntimeError: Both have one of a name, with different values.
    """
    owners = (s.module, s.datamodule) if s.trainer.enable_autolog_hparams else ()
    given = [owner.hparams_initial for owner in owners if owner is not None and owner._log_hyperparams]
    if len(given) == 2:
        refuse_other_values(*given)
    params = {name: value for owner in given for name, value in owner.items() if name != "_class_path"}
    guarded = s.observers.logger
    for logger in s.loggers:
        if not isinstance(logger, FileLogger):  # these open with their first row, for which some need no client
            _ = getattr(logger, "experiment", None)  # unguarded: a logger that can not begin is to be known of now
        if params:
            guarded(logger, "log_hyperparams", logger.log_hyperparams)(params)
        guarded(logger, "log_graph", logger.log_graph)(s.module)
        guarded(logger, "save", logger.save)()


def refuse_other_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuse hyper-parameters that two owners know with different values."""

    def same(a: Any, b: Any) -> bool:
        # comparing tensors gives tensors
        return type(a) is type(b) and (a is b if isinstance(a, torch.Tensor) else bool(a == b))

    names = [n for n in one.keys() & other.keys() if n != "_class_path" and not same(one[n], other[n])]
    if names:
        raise MisconfigurationRuntimeError(
            f"Error while merging hparams: the keys {sorted(names)} are present in both the LightningModule's and"
            " LightningDataModule's hparams but have different values."
        )
