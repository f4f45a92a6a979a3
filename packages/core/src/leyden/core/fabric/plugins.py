# SPDX-License-Identifier: Apache-2.0
"""The plug-ins, under the name that loops of one's own import them by."""

from leyden.core.plugins import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.plugins import __all__ as __all__
