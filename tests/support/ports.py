# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a test model as text."""

from __future__ import annotations

from typing import TypedDict


class Ports(TypedDict):
    """The inputs and outputs with their types, as `model_of` takes them."""

    x: str
    y: str
