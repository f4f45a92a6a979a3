# SPDX-License-Identifier: Apache-2.0
"""What a launcher is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Launcher(Protocol):
    """Starts the processes of a run on this machine.

    Attributes:
        is_interactive_compatible: Whether it works in a notebook or at a prompt, where there is no script to run again.
        procs: The processes it has started and not yet seen end.
    """

    is_interactive_compatible: bool

    @property
    def procs(self) -> Sequence[Any]:
        """The processes it has started and not yet seen end."""

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in every process.

        Args:
            function: What to run.
            *args: Its arguments.
            **kwargs: Its arguments by name.

        Returns:
            What the first process returned.
        """

    def kill(self, signum: int) -> None:
        """Send a signal to all processes."""
