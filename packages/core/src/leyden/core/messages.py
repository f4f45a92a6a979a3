# SPDX-License-Identifier: Apache-2.0
"""What a run has to say: to the log where the program reads it, and to the terminal otherwise."""

from __future__ import annotations

import logging
import sys


def tell(logger: logging.Logger, message: str) -> None:
    """Say something that was asked for, such as a report or why training ends.

    Args:
        logger: The logger of the module that speaks, at level info.
        message: What is said.
    """
    # a program that has not configured logging would never see it
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(message)
    else:
        print(message, file=sys.stderr)  # noqa: T201
