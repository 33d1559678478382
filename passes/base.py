# SPDX-License-Identifier: Apache-2.0
"""What a pass is: a frozen dataclass whose fields are its options and whose claims are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from math import inf
from typing import Any, ClassVar, TypeVar

from ..graph_ir import Model, Node, Rewriter, UsageError
from ..graph_ir.names import Names
from ..graph_ir.rewriter import Allow


class Exactness(Enum):
    """How far a pass may move the numbers; validation holds it to this."""

    BITWISE = "bitwise"  # the same bits, for every input
    ROUNDING = "rounding"  # the same real numbers, differently rounded
    LOSSY = "lossy"  # an approximation, accepted by the user's own limit


@dataclass(frozen=True)
class Property:
    """A named predicate over models that passes may require and ensure."""

    name: str
    holds: Callable[[Model], bool]


_BOUNDS = "tersor.bounds"
_Number = TypeVar("_Number", int, float)


def bounded(default: _Number, least: float, most: float = inf) -> _Number:
    """A number as an option of a pass, which refuses others than from `least` to `most`, and infinities."""
    return field(default=default, metadata={_BOUNDS: (least, most)})


def bounds_of(option: Field[Any]) -> str:
    """What `bounded` allows for a field, in words: "at least 2", "from 2 to 8"; empty where all is."""
    bounds: tuple[float, float] | None = option.metadata.get(_BOUNDS)
    if bounds is None:
        return ""
    least, most = bounds
    return f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"


@dataclass
class Context:
    """All that varies between runs; a pass itself holds no state.

    Attributes:
        seed: for whatever draws numbers.
        facts: what earlier steps measured, by name (for example "ranges").
        counters: per rule, how often it fired; filled by the driver and the passes.
        misses: per (rule, reason), how often a match was declined.
        allow: asked before each single rewrite (bisection); None allows all.
        notes: lines for the report: what was left alone, and why.
        names: what Rewriters of this run share; the manager sets it, and None lets each make its own.
    """

    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    counters: Counter[str] = field(default_factory=Counter[str])
    misses: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    allow: Allow | None = None
    notes: list[str] = field(default_factory=list[str])
    names: Names | None = None

    def rewriter(self, model: Model, on_node: Callable[[Node], None] | None = None) -> Rewriter:
        """The door for edits, with this run's bisection limit."""
        return Rewriter(model, allow=self.allow, on_node=on_node, names=self.names)

    def tally(self, name: str, refusal: str | None) -> None:
        """Count a rewrite of that name, or the reason why one was declined."""
        if refusal is None:
            self.counters[name] += 1
        else:
            self.misses[name, refusal] += 1

    def note(self, text: str) -> None:
        """Add a line to the report once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Pass:
    """Base of all passes; one with options is decorated as a dataclass again, one without need not be.

    Class attributes:
        name: as written in pipeline text.
        exact: the claim validation checks.
        requires: properties checked before it runs.
        ensures: properties checked after it ran, and used to check a pipeline before it starts.
        changes_signature: whether it may change inputs and outputs.
        needs_facts: names in `Context.facts` it reads.
        drops_facts: whether it changes values, so that what was measured before holds no longer.
    """

    name: ClassVar[str]
    exact: ClassVar[Exactness]
    requires: ClassVar[tuple[Property, ...]] = ()
    ensures: ClassVar[tuple[Property, ...]] = ()
    changes_signature: ClassVar[bool] = False
    needs_facts: ClassVar[tuple[str, ...]] = ()
    drops_facts: ClassVar[bool] = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite the model in place; True if anything changed."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Hold options to their bounds (`bounded`); a pass with a check of its own calls this first.

        Raises:
            UsageError: naming the option.
        """
        for option in fields(self):
            bounds: tuple[float, float] | None = option.metadata.get(_BOUNDS)
            given: float = getattr(self, option.name)
            if bounds is not None and not (bounds[0] <= given <= bounds[1] and given < inf):
                name = option.name.replace("_", "-")
                raise UsageError(f"{self.name}: {name} must be {bounds_of(option)}, not {given}")

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]
