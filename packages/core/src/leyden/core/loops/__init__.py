# SPDX-License-Identifier: Apache-2.0
"""Epochs and batches: fit, evaluate, predict, and the one optimisation step."""
