# SPDX-License-Identifier: Apache-2.0
"""Every exception and warning that core raises."""

from __future__ import annotations

import warnings


class LeydenError(Exception):
    """Root of the exceptions of core, loggers and bolts."""


class MisconfigurationException(LeydenError):
    """The Trainer, the module or the data were put together in a way that can not work."""


class MisconfigurationValueError(MisconfigurationException, ValueError):
    """A flag or argument has a value that is not allowed."""


class MisconfigurationTypeError(MisconfigurationException, TypeError):
    """A flag or argument has a type that is not allowed."""


class MisconfigurationRuntimeError(MisconfigurationException, RuntimeError):
    """Parts that were put together do not fit each other."""


class NotYetSupported(MisconfigurationException, NotImplementedError):
    """A valid flag whose engine is not part of this version; the roadmap says when it comes."""


class CheckpointError(LeydenError):
    """A checkpoint could not be found, read or written."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint where one was asked for."""


class CheckpointWriteError(CheckpointError):
    """A checkpoint could not be written, as on a full disk. Files saved earlier are untouched."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file is truncated or its content does not match its checksums."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds something that only code could rebuild; nothing of it was run."""


class NonFiniteError(LeydenError, ValueError):
    """The loss or a parameter became infinite or not a number."""


class RankFailedError(LeydenError):
    """A process of a distributed run ended before the others."""


class LoggerError(LeydenError):
    """A logger could not write; what it was given waits and is written once it works again."""


class MissingExtraError(LeydenError, ModuleNotFoundError):
    """An optional package is not installed; the message names the extra that brings it."""


class Interrupted(SystemExit):
    """A signal ended the run after its state was saved. The exit code is 128 plus the signal's number.

    Attributes:
        signum: Number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class LeydenWarning(UserWarning):
    """A warning with a code, so that one kind can be filtered.

    Attributes:
        code: Such as ``"LY-D003"``. It also stands at the start of the message.
    """

    code = ""


class PossibleUserWarning(LeydenWarning):
    """Something that is probably, but not surely, a mistake."""


class LightningDeprecationWarning(LeydenWarning, DeprecationWarning):
    """An old spelling that still works; the message names today's."""


class _WarningLedger:
    """Remembers which warnings a run has shown, so that each is shown once."""

    def __init__(self) -> None:
        self.shown: set[tuple[str, str]] = set()

    def clear(self) -> None:
        self.shown.clear()


WARNED = _WarningLedger()


def warn(code: str, message: str, category: type[LeydenWarning] = LeydenWarning, *, stacklevel: int = 3) -> None:
    """Show a warning, once per run.

    Args:
        code: The warning's code, such as ``"LY-D003"``.
        message: What was noticed, and what to do about it.
        category: Class of the warning.
        stacklevel: As in `warnings.warn`, counted from the caller of this function.
    """
    if (code, message) in WARNED.shown:
        return
    WARNED.shown.add((code, message))
    warning = category(f"[{code}] {message}")
    warning.code = code
    warnings.warn(warning, stacklevel=stacklevel)
