# SPDX-License-Identifier: Apache-2.0
"""What only the first process does, under the name that loops of one's own import it by."""

from leyden.core.utilities.rank_zero import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.utilities.rank_zero import __all__ as __all__
