# SPDX-License-Identifier: Apache-2.0
"""Every exception and warning of the package."""

from __future__ import annotations


class MetricError(Exception):
    """Root of the exceptions of leyden.metrics."""


class MetricValueError(MetricError, ValueError):
    """An argument or a batch holds something that is not allowed."""


class MetricTypeError(MetricError, TypeError):
    """A keyword is unknown, or an argument has a type that is not allowed."""


class MissingExtraError(MetricError, ModuleNotFoundError):
    """An optional package is not installed; the message names the extra that brings it."""


class MetricWarning(UserWarning):
    """Something that is probably a mistake, yet gives a defined result."""
