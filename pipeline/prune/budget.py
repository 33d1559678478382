# SPDX-License-Identifier: Apache-2.0
"""How much is to go: a share of the channels, or what may be left of parameters, MACs, bytes or time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...graph_ir import UsageError
from ..amounts import in_percent

KINDS = ("ratio", "params", "macs", "size", "latency")

FAR = 0.02
"""So much of the original below a budget is far: steps go back where they fit, and else it is told why."""

UNITS = {
    "ratio": "channels",
    "params": "parameters",
    "macs": "MACs",
    "size": "bytes on disk",
    "latency": "latency",
}


@dataclass(frozen=True)
class Budget:
    """What to reach.

    Attributes:
        kind: one of `KINDS`.
        value: of `ratio`, the share of the prunable channels to remove; of all others, what may be left as a
            share of the original. Above 0 and below 1.

    Raises:
        UsageError: the kind is not known or the value out of range.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"no budget is called {self.kind!r}; there is {', '.join(KINDS)}")
        if not math.isfinite(self.value) or not 0 < self.value < 1:
            what = "the share of channels to remove" if self.kind == "ratio" else self._left()
            mend = in_percent(self.value) if self.value > 1 else ""  # 100% is meant as it stands
            raise UsageError(f"--{self.kind} is {what}, above 0 and below 1, not {self.value:g}{mend}")

    def _left(self) -> str:
        return f"the share of the {UNITS[self.kind]} to keep"

    @property
    def left(self) -> float:
        """The share of the original that is to be left."""
        return 1 - self.value if self.kind == "ratio" else self.value

    def after(self, done: int, rounds: int) -> float:
        """The share of the original to be left after round `done` of `rounds`.

        Each round removes the same share of what the last one left, so the last rounds, in which every
        channel counts for more, remove the fewest.
        """
        return self.left ** (done / rounds)

    def __str__(self) -> str:
        if self.kind == "ratio":
            return f"{self.value:.0%} of the channels removed"
        return f"{self.value:.0%} of the {UNITS[self.kind]} left"


def corrected(start: float, predicted: float, measured: float, wanted: float) -> float:
    """What to ask of the prediction so that `wanted` is measured: on the line from the start to the last try.

    Where the last try was no faster than the start, the line says nothing; then in proportion.
    """
    if measured < start and predicted < start:
        asked = start - (start - wanted) * (start - predicted) / (start - measured)
        return min(max(asked, wanted / 4), start)
    return predicted * wanted / measured
