# SPDX-License-Identifier: Apache-2.0
"""self.log: slots, lazy folding, and rows for loggers, bar and monitors."""
