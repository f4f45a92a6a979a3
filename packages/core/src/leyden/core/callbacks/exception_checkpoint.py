# SPDX-License-Identifier: Apache-2.0
"""OnExceptionCheckpoint: the state of a training run that an exception ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from leyden.core.callback import Callback
from leyden.core.checkpoint import manifest
from leyden.core.errors import MisconfigurationValueError
from leyden.core.states import TrainerFn

if TYPE_CHECKING:
    from leyden.core.module import LightningModule
    from leyden.core.trainer.trainer import Trainer


class OnExceptionCheckpoint(Callback):
    """Saves a training run that an exception or a signal ends, and removes the file when a later fit ends well.

    A run that failed before its first batch, perhaps while it was read from this very file, has nothing to save and
    leaves the file alone. A run with ``fast_dev_run`` saves and removes nothing.

    Args:
        dirpath: The folder; it is made when needed.
        filename: The name without ``.ckpt``; an earlier file of that name is replaced.

    Raises:
        MisconfigurationValueError: ``filename`` is empty.

    Examples:
        >>> from leyden.core.callbacks import OnExceptionCheckpoint
        >>> OnExceptionCheckpoint("runs").ckpt_path
        'runs/on_exception.ckpt'
    """

    FILE_EXTENSION = ".ckpt"

    def __init__(self, dirpath: str | os.PathLike[str], filename: str = "on_exception") -> None:
        if not filename:
            raise MisconfigurationValueError(f"The filename cannot be empty; got filename={filename!r}.")
        self.dirpath, self.filename = dirpath, filename
        self._trains = False

    @property
    def ckpt_path(self) -> str:
        """Path of the file."""
        return str(Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that from now on there is something to save."""
        self._trains = not trainer.fast_dev_run

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the run."""
        if self._trains:
            trainer.save_checkpoint(self.ckpt_path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the file of an earlier failure, if the training ended well."""
        if stage == TrainerFn.FITTING and self._trains and trainer.state.finished:
            manifest.delete(Path(self.ckpt_path))
        self._trains = False
