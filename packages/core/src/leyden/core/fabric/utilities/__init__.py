# SPDX-License-Identifier: Apache-2.0
"""Small things, under the name that loops of one's own import them by."""

from leyden.core.utilities import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.utilities import __all__ as __all__
