# SPDX-License-Identifier: Apache-2.0
"""Signals only set a flag; the loops look at it where the run can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Whether a signal asked this process to stop.

    Attributes:
        signum: Number of the first signal that came, or None.

    Examples:
        >>> import signal
        >>> from leyden.core.signals import StopFlag
        >>> flag = StopFlag()
        >>> with flag.listening():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> flag.signum == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        # a second signal takes its ordinary course at once; whoever listened before us learns of the first
        before = self._before.get(signum)
        default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
        signal.signal(signum, default)
        if callable(before) and before is not signal.default_int_handler:
            before(signum, frame)

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """Catch signals for the length of a ``with`` block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for caught in CAUGHT:
            # what the parent process had ignored, as for a job in the background, stays ignored
            if signal.getsignal(caught) is not signal.SIG_IGN:
                self._before[caught] = signal.signal(caught, self._handle)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._before = {}
