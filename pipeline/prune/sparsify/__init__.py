# SPDX-License-Identifier: Apache-2.0
"""Zeros in single weights: by magnitude, by what they are multiplied with, or made up for by the rest."""

from .options import CRITERIA, NEED_DATA, SparsityOptions
from .report import LayerZeros, SparsityReport
from .run import sparsify

__all__ = ["CRITERIA", "NEED_DATA", "LayerZeros", "SparsityOptions", "SparsityReport", "sparsify"]
