# SPDX-License-Identifier: Apache-2.0
"""The formats of this package. Each module imports what it needs when it is used, not before."""
