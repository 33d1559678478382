# SPDX-License-Identifier: Apache-2.0
"""Where a model goes: what a runtime supports, sessions, and what became of each node there."""
