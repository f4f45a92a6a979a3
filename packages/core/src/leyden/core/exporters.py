# SPDX-License-Identifier: Apache-2.0
"""Export formats by name, from whichever installed distribution brings them."""

from __future__ import annotations

from importlib.metadata import entry_points

from leyden.core.errors import MisconfigurationException, MissingExtraError
from leyden.core.interfaces import ExporterLike

GROUP = "leyden.export.formats"


def find_exporter(name: str) -> ExporterLike:
    """Return the exporter of a format.

    Args:
        name: Name of the format, such as ``"onnx"``.

    Raises:
        MissingExtraError: No installed distribution has it.
        MisconfigurationException: Two distributions have it.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise MissingExtraError(f"exporting to {name!r} needs another package: pip install 'leyden-export[{name}]'.")
    if len(found) > 1:
        owners = " and ".join(sorted(e.dist.name if e.dist is not None else e.value for e in found))
        raise MisconfigurationException(f"the format {name!r} is registered by {owners}: uninstall one of them.")
    loaded = found[0].load()
    exporter: ExporterLike = loaded() if isinstance(loaded, type) else loaded
    return exporter
