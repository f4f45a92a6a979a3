# SPDX-License-Identifier: Apache-2.0
"""Small models and data to try the trainer with."""
