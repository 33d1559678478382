# SPDX-License-Identifier: Apache-2.0
"""Torch comes with an extra; without it one line says so."""

from __future__ import annotations

from importlib.util import find_spec

from ...graph_ir import UsageError


def require_torch(what: str) -> None:
    """Refuse in one line when torch is not installed.

    Args:
        what: what needs it, as the message begins.

    Raises:
        UsageError: torch cannot be found.
    """
    if find_spec("torch") is None:
        raise UsageError(f"{what} needs gradients, which torch computes: pip install 'tersor[train]'")
