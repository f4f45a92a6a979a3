# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a name and a model."""

from __future__ import annotations

from leyden.core.errors import LeydenError


class BoltError(LeydenError):
    """Root of the exceptions of leyden.bolts."""


class BoltValueError(BoltError, ValueError):
    """A name that nothing is registered under, or a value that a config or an argument does not take."""


class BrokenBoltError(BoltError, ImportError):
    """A registered bolt that can not be imported, or that is not what its entry point says."""
