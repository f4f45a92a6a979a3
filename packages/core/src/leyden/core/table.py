# SPDX-License-Identifier: Apache-2.0
"""Small tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, in columns divided by bars.

    Examples:
        >>> from leyden.core.table import render
        >>> print(render(("name", "value"), [("loss", "0.5")]))
        name | value
        -----+------
        loss | 0.5
    """
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(lines)
