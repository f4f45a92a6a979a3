# SPDX-License-Identifier: Apache-2.0
"""A tqdm bar whose numbers keep their width."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# tqdm's automatic choice warns in a notebook that lacks ipywidgets, where the plain bar works
if not TYPE_CHECKING and find_spec("ipywidgets") is not None:
    from tqdm.auto import tqdm
else:
    from tqdm import tqdm

_WIDTH = 5


class Tqdm(tqdm):  # type: ignore[type-arg]
    """A bar that shows 0.5 as 0.500, so that the line does not flicker when digits come and go.

    Examples:
        >>> from leyden.core.callbacks.progress.tqdm_bar import Tqdm
        >>> Tqdm.format_num(0.5), Tqdm.format_num(3), Tqdm.format_num("1e-05")
        ('0.500', '3', '1e-05')
    """

    @staticmethod
    def format_num(n: Any) -> str:
        """Return a number as the bar shows it."""
        text = n if isinstance(n, str) else tqdm.format_num(n)
        if isinstance(n, int) or "e" in text:
            return text
        if "." not in text and len(text) < _WIDTH:
            try:
                float(text)
            except ValueError:
                return text
            text += "."
        return text.ljust(_WIDTH, "0")
