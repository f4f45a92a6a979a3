# SPDX-License-Identifier: Apache-2.0
"""The loggers, under the name that loops of one's own import them by."""

from leyden.core.loggers import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.loggers import __all__ as __all__
