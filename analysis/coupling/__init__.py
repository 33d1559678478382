# SPDX-License-Identifier: Apache-2.0
"""Which channels of a model can only be removed together."""

from __future__ import annotations

from .graph import Attention, attention_of, couple
from .groups import Coupling, Group, GroupAxis, Mask, Pinned
from .ties import AxisKey, Rule, Ties

__all__ = [
    "Attention",
    "AxisKey",
    "Coupling",
    "Group",
    "GroupAxis",
    "Mask",
    "Pinned",
    "Rule",
    "Ties",
    "attention_of",
    "couple",
]
