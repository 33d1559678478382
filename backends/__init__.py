# SPDX-License-Identifier: Apache-2.0
"""Where a model goes: legalize, emit, open, run, profile."""
