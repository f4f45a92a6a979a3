# SPDX-License-Identifier: Apache-2.0
"""Keep the chatter of tracer and converter away from the user; what matters is in an error or in the report."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, logging and printing for the length of a block.

    torch.export prints the graph it failed on, torch.onnx logs each library that is not installed, and both warn of the
    removal of functions that only they call.
    """
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
