# SPDX-License-Identifier: Apache-2.0
"""Deciding what to prune: importance, budgets, widths, rounds."""
