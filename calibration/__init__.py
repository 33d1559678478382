# SPDX-License-Identifier: Apache-2.0
"""Measured facts: feeds, observers, ranges."""
