# SPDX-License-Identifier: Apache-2.0
"""Tests; a package so that helpers are imported as `tests.support.<module>`."""
