# SPDX-License-Identifier: Apache-2.0
"""Batches: where they come from, how many there are, in which order, and how a run goes on in the middle."""
