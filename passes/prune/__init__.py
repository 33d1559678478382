# SPDX-License-Identifier: Apache-2.0
"""Removing channels: what a pruning plan says, and the pass that carries it out."""
