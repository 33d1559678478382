# SPDX-License-Identifier: Apache-2.0
"""The processors that a run may use, and the most threads it may be given."""

from __future__ import annotations

import os

MOST_THREADS = 1024  # onnxruntime starts as many as it is told; tens of thousands take the machine down


def usable_cores() -> int:
    """Cores that this process may run on, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
