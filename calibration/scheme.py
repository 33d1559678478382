# SPDX-License-Identifier: Apache-2.0
"""The quantisation grid that a range is chosen for."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph_ir.errors import UsageError


@dataclass(frozen=True)
class Scheme:
    """Number of bits, and whether the grid is symmetric about zero.

    Asymmetric (the U8 activations of onnxruntime): ``2**bits`` levels over ``[lo, hi]``, zero on the grid.
    Symmetric (the S8 of TensorRT): ``2**bits - 1`` levels over ``[-hi, hi]``, zero in the middle.
    """

    bits: int = 8
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UsageError(f"a quantisation scheme of {self.bits} bits is not possible; use 2 to 16")

    @property
    def levels(self) -> int:
        """Number of steps between the lowest and the highest code."""
        return 2**self.bits - (2 if self.symmetric else 1)

    def __str__(self) -> str:
        return f"{'symmetric' if self.symmetric else 'asymmetric'}-{self.bits}"


U8 = Scheme(8, symmetric=False)
S8 = Scheme(8, symmetric=True)
