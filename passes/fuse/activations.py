# SPDX-License-Identifier: Apache-2.0
"""What the passes that fuse activations share: exact constants, dtypes, and asking for a newer opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Rewriter, Value, constant
from ...graph_ir.ops import opset_of, rank, walk_nodes
from ..base import Context
from ..driver import apply_rules
from ..matching import match
from ..opset import opset_blockers, raise_opset
from ..pattern import Const, Match, Miss, Rule

_NEAR = 1e-2  # patterns take constants this near, so that float16 models match; `exact` then decides


def near(name: str, value: float) -> Const:
    """A one-element constant about this value, bound to a name; `exact` holds it to the dtype's rounding."""
    return Const(name, value, _NEAR)


def exact(m: Match, dtype: DataType, **wanted: float) -> bool:
    """Whether each bound constant that is present is the wanted number, to one rounding of the dtype.

    Exporters print constants with 7 to 10 digits, so for float and wider a unit in the last place of float is
    allowed.
    """
    step = {DataType.FLOAT16: 2.0**-10, DataType.BFLOAT16: 2.0**-7}.get(dtype, 2.0**-22)
    for name, value in wanted.items():
        if m.get(name) is None:
            continue
        data = constant(m[name])
        if data is None or abs(float(data.reshape(-1)[0]) - value) > step * abs(value):
            return False
    return True


def keeps_rank(m: Match, x: Value, *names: str) -> bool:
    """Whether no bound constant has a higher rank than x, which broadcasting would give the result."""
    extent = rank(x)
    for name in names:
        value = m.get(name)
        data = None if value is None else constant(value)
        if data is not None and data.ndim > (extent or 0):
            return False
    return True


class Fusion(Rule):
    """A rule whose operator needs an opset; below it the rule declines."""

    since: ClassVar[int]

    def decline(self, m: Match) -> Miss | None:
        """Why the match must be left alone, whatever the opset; None when it may be fused."""
        raise NotImplementedError

    def fuse(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The value in the root's place; the opset is high enough and nothing declined."""
        raise NotImplementedError

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The fused value, or why not."""
        reason = self.decline(m)
        if reason is not None:
            return reason
        if rw.opset(m.root) < self.since:
            return Miss(f"needs opset {self.since}")
        return self.fuse(m, rw)


def fuse_all(model: Model, ctx: Context, rules: Sequence[Fusion], *, raising: bool) -> bool:
    """Apply fusions; with `raising`, first raise the opset to what those that fire need, if that is safe."""
    changed = False
    if raising:
        needed = max((r.since for r in rules if _would_fire(model, r)), default=0)
        if needed > opset_of(model):
            for reason in opset_blockers(model, needed):
                ctx.note(f"opset {needed} was wanted for a fusion, but {reason}")
            changed = raise_opset(model, ctx.rewriter(model), needed)
    return apply_rules(model, ctx, rules) or changed


def _would_fire(model: Model, rule: Fusion) -> bool:
    for node in walk_nodes(model):
        if node.op_type in rule.root.op_types:
            found = match(rule.root, node)
            if found is not None and rule.decline(found) is None:
                return True
    return False


def float_type(x: Value, result: Value, *allowed: DataType) -> DataType | Miss:
    """The dtype of x (or of the result, which is the same), if it is one of those allowed."""
    dtype = x.dtype or result.dtype
    if dtype is None:
        return Miss("type not known")
    return dtype if dtype in allowed else Miss(f"not for {dtype.name.lower()}")


def is_scalar(value: Value | None) -> bool:
    """Whether the value is a constant with one element."""
    data = constant(value)
    return data is not None and data.size == 1 and bool(np.isfinite(float(data.reshape(-1)[0])))
