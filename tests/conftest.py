# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests: property tests draw the same examples on every run and are not timed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("tersor", derandomize=True, deadline=None)
settings.load_profile("tersor")
