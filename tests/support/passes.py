# SPDX-License-Identifier: Apache-2.0
"""Small passes to test pipelines with, by name through `find`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Literal

import numpy as np

from tersor.graph_ir import Model, constant, tensor
from tersor.passes import catalog
from tersor.passes.base import Context, Exactness, Pass, Property

NO_FUNCTIONS = Property("no-functions", lambda model: not model.functions)


class Scheme(Enum):
    """An option that is an enum."""

    INT8 = "int8"
    INT4 = "int4"


@dataclass(frozen=True)
class Options(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "options"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    scheme: Scheme = Scheme.INT8
    per_channel: bool = False
    rounds: int = 3
    limit: float = 0.5
    label: str = "x"
    ops: tuple[str, ...] = ()
    mode: Literal["fast", "best"] = "fast"
    seed: int | None = None

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class Strict(Pass):
    """A pass with an option that must be given and is checked."""

    name: ClassVar[str] = "strict"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share} is not in [0, 1]")

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class CountDown(Pass):
    """Change something as often as it is told to, kept in `Context.facts`."""

    name: ClassVar[str] = "count-down"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    start: int = 2

    def run(self, model: Model, ctx: Context) -> bool:
        left = ctx.facts.setdefault("left", self.start)
        ctx.counters["asked"] += 1
        ctx.misses["rule", "why"] += 1
        if left == 0:
            return False
        ctx.facts["left"] = left - 1
        return True


@dataclass(frozen=True)
class ScaleWeights(Pass):
    """Multiply every float32 weight; what it claims does not hold."""

    name: ClassVar[str] = "scale-weights"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    by: float = 1.5

    def run(self, model: Model, ctx: Context) -> bool:
        for value in model.graph.initializers.values():
            array = constant(value)
            if array is not None and array.dtype == np.float32 and value.const_value is not None:
                value.const_value = tensor((array * self.by).astype(np.float32), name=value.name)
        return True


@dataclass(frozen=True)
class ScaleBitwise(ScaleWeights):
    """The same, claiming equal bits."""

    name: ClassVar[str] = "scale-bitwise"
    exact: ClassVar[Exactness] = Exactness.BITWISE


@dataclass(frozen=True)
class ScaleLossy(ScaleWeights):
    """The same, claiming an approximation."""

    name: ClassVar[str] = "scale-lossy"
    exact: ClassVar[Exactness] = Exactness.LOSSY


@dataclass(frozen=True)
class NeedsInlined(Pass):
    """Require a model without functions."""

    name: ClassVar[str] = "needs-inlined"
    exact: ClassVar[Exactness] = Exactness.BITWISE
    requires: ClassVar[tuple[Property, ...]] = (NO_FUNCTIONS,)

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class EnsuresInlined(Pass):
    """Say that no functions are left, which holds for models that have none."""

    name: ClassVar[str] = "ensures-inlined"
    exact: ClassVar[Exactness] = Exactness.BITWISE
    ensures: ClassVar[tuple[Property, ...]] = (NO_FUNCTIONS,)

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class NeedsRanges(Pass):
    """Need measured ranges."""

    name: ClassVar[str] = "needs-ranges"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    needs_facts: ClassVar[tuple[str, ...]] = ("ranges",)

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class BreaksPromise(Pass):
    """Ensure what never holds."""

    name: ClassVar[str] = "breaks-promise"
    exact: ClassVar[Exactness] = Exactness.BITWISE
    ensures: ClassVar[tuple[Property, ...]] = (Property("never", lambda model: len(model.graph) < 0),)

    def run(self, model: Model, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class RenamesOutput(Pass):
    """Break the model's signature."""

    name: ClassVar[str] = "renames-output"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        model.graph.outputs[0].name = "renamed"
        return True


@dataclass(frozen=True)
class Interrupts(Pass):
    """Stand for Ctrl-C in the middle of a pass."""

    name: ClassVar[str] = "interrupts"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Crashes(Pass):
    """Stand for a fault in a pass."""

    name: ClassVar[str] = "crashes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        raise KeyError("no such thing")


PASSES: dict[str, type[Pass]] = {
    each.name: each
    for each in (
        Options,
        Strict,
        CountDown,
        ScaleWeights,
        ScaleBitwise,
        ScaleLossy,
        NeedsInlined,
        EnsuresInlined,
        NeedsRanges,
        BreaksPromise,
        RenamesOutput,
        Interrupts,
        Crashes,
    )
}


def find(name: str) -> type[Pass]:
    """A pass of this module, or of the catalogue."""
    return PASSES[name] if name in PASSES else catalog.get(name)
