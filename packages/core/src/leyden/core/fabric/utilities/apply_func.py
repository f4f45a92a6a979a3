# SPDX-License-Identifier: Apache-2.0
"""Moving batches, under the name that loops of one's own import it by."""

from leyden.core.utilities.apply_func import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.utilities.apply_func import __all__ as __all__
