# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the file, the state of a run inside it, and the folder that holds many."""
