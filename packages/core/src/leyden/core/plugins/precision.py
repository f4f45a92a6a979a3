# SPDX-License-Identifier: Apache-2.0
"""Number formats of a run."""

from __future__ import annotations


class Precision:
    """The plain format: parameters, batches and gradients stay as they are, 32 bits by default.

    Attributes:
        precision: Name of the format, as the Trainer's flag ``precision`` takes it.

    Examples:
        >>> import leyden.core as L
        >>> trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
        >>> trainer.precision_plugin.precision
        '32-true'
    """

    precision: str = "32-true"
