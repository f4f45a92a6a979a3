# SPDX-License-Identifier: Apache-2.0
"""The strategies, under the name that loops of one's own import them by."""

from leyden.core.strategies import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.strategies import __all__ as __all__
