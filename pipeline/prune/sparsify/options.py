# SPDX-License-Identifier: Apache-2.0
"""What `sparsify` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ....graph_ir import UsageError
from ....passes.prune.masks import Pattern, check_sparsity, read_pattern

CRITERIA = ("magnitude", "wanda", "sparsegpt")
NEED_DATA = ("wanda", "sparsegpt")
SCOPES = ("layer", "global")


@dataclass(frozen=True)
class SparsityOptions:
    """A share of zeros or a pattern, and how the weights are chosen.

    Attributes:
        sparsity: share of zeros, in (0, 1).
        pattern: N:M instead: at most N of each M weights along the input channels stay.
        criterion: magnitude (needs no data), wanda or sparsegpt.
        scope: layer, or global (magnitude only): one threshold for all layers.
        exclude: globs over labels and origins of nodes and names of weights, or operators as ``op:Gemm``.
        damping: of sparsegpt: added to the diagonal of the Hessian, as a share of its mean.
        target: the backend whose gain the report speaks of.
        compress: whether gzip sizes are worked out.
        seed: draws the places of large activations that are looked at.

    Raises:
        UsageError: neither or both of sparsity and pattern, or one of the values is out of range.
    """

    sparsity: float | None = None
    pattern: str | None = None
    criterion: str = "magnitude"
    scope: str = "layer"
    exclude: tuple[str, ...] = ()
    damping: float = 0.01
    target: str = "onnxruntime"
    compress: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sparsity is None and self.pattern is None:
            raise UsageError("give a share of zeros (sparsity 0.5) or a pattern (2:4)")
        if self.sparsity is not None and self.pattern is not None:
            raise UsageError("give a sparsity or a pattern, not both: a pattern sets the share")
        if self.sparsity is not None:
            check_sparsity(self.sparsity)
        if self.pattern is not None:
            read_pattern(self.pattern)
        if self.criterion not in CRITERIA:
            raise UsageError(
                f"no sparsity criterion is called {self.criterion!r}; there are {', '.join(CRITERIA)}"
            )
        if self.scope not in SCOPES:
            raise UsageError(f"scope {self.scope!r} is not one of {', '.join(SCOPES)}")
        if self.scope == "global" and (self.criterion != "magnitude" or self.pattern is not None):
            raise UsageError(
                "a global threshold compares magnitudes: criterion magnitude and a sparsity only"
            )
        if not 0.0 < self.damping < float("inf"):
            raise UsageError(f"damping {self.damping:g} is not positive")

    @property
    def runs(self) -> Pattern | None:
        """The pattern, read."""
        return None if self.pattern is None else read_pattern(self.pattern)

    @property
    def needs_data(self) -> bool:
        """Whether the criterion looks at activations."""
        return self.criterion in NEED_DATA

    def __str__(self) -> str:
        if self.pattern is not None:
            return f"pattern {self.pattern}"
        where = "one threshold for all" if self.scope == "global" else "per layer"
        return f"sparsity {self.sparsity:g}, {where}"
