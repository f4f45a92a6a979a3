# SPDX-License-Identifier: Apache-2.0
"""The kinds of device, under the name that loops of one's own import them by."""

from leyden.core.accelerators import *  # noqa: F403 - the same names at the place where ported code looks for them
from leyden.core.accelerators import __all__ as __all__
