# SPDX-License-Identifier: Apache-2.0
"""Patterns over the graph, as values: written like the expression they match (docs/decisions/0003).

    conv = op("Conv", var("x"), const("w"), maybe(const("b")))
    root = op("BatchNormalization", conv, const("scale"), const("bias"), const("mean"), const("var"))

A rule is a root pattern and a function that returns the value to put in place of the root's first output, or
a `Miss` with the reason. Rules are indexed by the root's operator; matching costs nothing elsewhere. A second
root is reached from the first through `Value.uses()`, never by search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numpy.typing import NDArray

from ..graph_ir import Node, Rewriter, Value
from ..graph_ir.ops import constant_tensor


class Pattern:
    """Anything that can stand in an operand place."""

    def may_fit(self, value: Value | None) -> bool:
        """Whether an operand may match, by no more than what makes it; False is certain."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Var(Pattern):
    """Matches any value; the same name twice matches only the same value."""

    name: str

    def may_fit(self, value: Value | None) -> bool:
        return value is not None


@dataclass(frozen=True, eq=False)
class Const(Pattern):
    """Matches a constant (never an initializer a caller may override)."""

    name: str
    value: float | None = None
    tolerance: float = 0.0

    def may_fit(self, value: Value | None) -> bool:
        return value is not None and ((made_by := value.producer()) is None or made_by.op_type == "Constant")


@dataclass(frozen=True, eq=False)
class Maybe(Pattern):
    """Matches the inner pattern, or an input left out."""

    inner: Pattern

    def may_fit(self, value: Value | None) -> bool:
        return value is None or self.inner.may_fit(value)


@dataclass(frozen=True, eq=False)
class Either(Pattern):
    """Matches the first alternative that fits."""

    options: tuple[Pattern, ...]

    def may_fit(self, value: Value | None) -> bool:
        return any(option.may_fit(value) for option in self.options)


@dataclass(frozen=True, eq=False)
class Op(Pattern):
    """Matches the first output of an ai.onnx node of one of the types.

    The same pattern object in two places matches only the same node.

    A result inside the pattern must be read only by matched nodes and be no graph output, unless `shared`.
    """

    op_types: tuple[str, ...]
    inputs: tuple[Pattern, ...]
    commutes: bool = False
    is_shared: bool = False
    name: str = ""

    def may_fit(self, value: Value | None) -> bool:
        return value is not None and (node := value.producer()) is not None and node.op_type in self.op_types

    def shared(self) -> Op:
        """The same pattern, whose result others may read too (the node then stays)."""
        return Op(self.op_types, self.inputs, self.commutes, True, self.name)

    def named(self, name: str) -> Op:
        """The same pattern, whose result value is bound to a name too."""
        return Op(self.op_types, self.inputs, self.commutes, self.is_shared, name)


def op(op_types: str | Sequence[str], *inputs: Pattern) -> Op:
    """A node of a type (or one of several) with these inputs; inputs beyond the pattern must be absent."""
    kinds = (op_types,) if isinstance(op_types, str) else tuple(op_types)
    return Op(kinds, inputs)


def commute(op_types: str | Sequence[str], left: Pattern, right: Pattern) -> Op:
    """A two-operand node whose operands may stand in either order."""
    kinds = (op_types,) if isinstance(op_types, str) else tuple(op_types)
    return Op(kinds, (left, right), commutes=True)


def may_match(pattern: Pattern, occurs: Callable[[str], bool]) -> bool:
    """Whether the pattern can match anywhere in a model of which only the operators are known.

    Args:
        pattern: any pattern.
        occurs: whether an operator type may occur in the model.
    """
    if isinstance(pattern, Either):
        return any(may_match(option, occurs) for option in pattern.options)
    if isinstance(pattern, Op):
        return any(map(occurs, pattern.op_types)) and all(may_match(p, occurs) for p in pattern.inputs)
    return True


def var(name: str) -> Var:
    """Any value, bound to a name."""
    return Var(name)


def const(name: str) -> Const:
    """Any constant, bound to a name."""
    return Const(name)


def scalar(value: float, tolerance: float = 0.0) -> Const:
    """A one-element constant of this value (within a relative tolerance)."""
    return Const("", value, tolerance)


def maybe(pattern: Pattern) -> Maybe:
    """The pattern, or nothing."""
    return Maybe(pattern)


def either(*patterns: Pattern) -> Either:
    """The first of several that matches."""
    return Either(patterns)


@dataclass(frozen=True)
class Miss:
    """Why a rule that matched did not fire; counted and shown by `--explain`."""

    reason: str


@dataclass
class Match:
    """What a pattern bound.

    `match["x"]` is the bound value (`get` gives None when absent), `match.array("w")` a constant's data,
    `match.node(pattern)` the node a sub-pattern matched.
    """

    root: Node
    values: dict[str, Value | None] = field(default_factory=dict[str, "Value | None"])
    nodes: dict[Op, Node] = field(default_factory=dict[Op, Node])

    def __getitem__(self, name: str) -> Value:
        value = self.values[name]
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> Value | None:
        """The bound value, None when the optional operand is absent."""
        return self.values.get(name)

    def array(self, name: str) -> NDArray[Any]:
        """The data of a bound constant."""
        tensor = constant_tensor(self[name])
        if tensor is None:
            raise KeyError(name)
        return tensor.numpy()

    def node(self, pattern: Op) -> Node:
        """The node a sub-pattern matched."""
        return self.nodes[pattern]


class Rule:
    """One rewrite: a root pattern and what to put in its place.

    The docstring states the algebra and when it is not valid.
    """

    root: ClassVar[Op]

    @property
    def name(self) -> str:
        """How counters and bisection call the rule."""
        return type(self).__name__

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The value to replace the root's first output, a `Miss`, or None when edited in place.

        Nothing may be created before the last reason to miss is ruled out.
        """
        raise NotImplementedError
