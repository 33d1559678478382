# SPDX-License-Identifier: Apache-2.0
"""Small models for deciding what to prune, groups made by hand, and a machine that takes time as foretold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tersor.analysis.cost import cost
from tersor.analysis.coupling import Coupling, Group, GroupAxis
from tersor.graph_ir import DataType, Model, Node, Shape, TensorType, Value, parse
from tersor.pipeline.prune.spend import Spend
from tersor.pipeline.prune.timing import Clock

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[1,3,8,8] x) => (float[1,8,1,1] y)
<float[32,3,3,3] w0 = {seed}, float[64,32,3,3] w1 = {seed}, float[48,64,1,1] w2 = {seed},
 float[8,48,1,1] w3 = {seed}, float[32] b0 = {seed}>
{
    [first] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
    ra = Relu(a)
    [second] b = Conv<pads=[1,1,1,1]>(ra, w1)
    rb = Relu(b)
    [third] c = Conv(rb, w2)
    rc = Relu(c)
    p = GlobalAveragePool(rc)
    [last] y = Conv(p, w3)
}
"""
"""Widths 32, 64 and 48; what the last layer makes is the output."""

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
residual (float[N,4,8,8] x) => (float[N,10] y)
<float[32,4,3,3] w0 = {seed}, float[96,32,1,1] w1 = {seed}, float[96,1,3,3] wd = {seed},
 float[32,96,1,1] w2 = {seed}, float[10,32] w3 = {seed}, int64[2] flat = {0, -1}>
{
    a = Conv<pads=[1,1,1,1]>(x, w0)
    [expand] b = Conv(a, w1)
    rb = Relu(b)
    [depthwise] d = Conv<pads=[1,1,1,1], group=96>(rb, wd)
    rd = Relu(d)
    c = Conv(rd, w2)
    s = Add(a, c)
    g = GlobalAveragePool(s)
    f = Reshape(g, flat)
    y = Gemm<transB=1>(f, w3)
}
"""
"""A stream of 32 channels with a block of 96 and a depthwise convolution in it."""

MLP = """
<ir_version: 8, opset_import: ["" : 17]>
mlp (float[B,T,16] x) => (float[B,T,16] y)
<float[16,64] w0 = {seed}, float[64] b0 = {seed}, float[64,16] w1 = {seed}>
{
    [up] h = MatMul(x, w0)
    hb = Add(h, b0)
    r = Relu(hb)
    [down] y = MatMul(r, w1)
}
"""

PINNED = """
<ir_version: 8, opset_import: ["" : 17]>
pinned (float[1,4] x) => (float[1,8] y)
<float[4,8] w = {seed}>
{
    [only] y = MatMul(x, w)
}
"""
"""Its one layer makes the output."""


def chain() -> Model:
    return parse(CHAIN)


def residual() -> Model:
    return parse(RESIDUAL)


def mlp() -> Model:
    return parse(MLP)


def pinned() -> Model:
    return parse(PINNED)


MODELS: dict[str, Callable[[], Model]] = {"chain": chain, "residual": residual, "mlp": mlp}


def value(name: str, *shape: int) -> Value:
    """An activation that nothing makes."""
    return Value(name=name, shape=Shape(shape), type=TensorType(DataType.FLOAT))


def group(name: str, atoms: int, *, per_atom: int = 1, axes: Sequence[GroupAxis] = ()) -> Group:
    """A group in axis 1 of one activation, with `per_atom` positions for each atom, and in `axes`."""
    positions = np.repeat(np.arange(atoms, dtype=np.int32), per_atom)
    first = GroupAxis(value(name, 1, atoms * per_atom), 1, positions)
    return Group(f"{name}:1", atoms, (first, *axes), (), (), ())


def coupling(*sizes: int) -> Coupling:
    """Groups g0, g1, ... of these many atoms."""
    return Coupling(tuple(group(f"g{i}", size) for i, size in enumerate(sizes)), ())


def node_named(model: Model, name: str) -> Node:
    return next(node for node in model.graph if node.name == name)


class Predicted:
    """Time as predicted by MACs."""

    def __init__(self, spend: Spend) -> None:
        self._spend = spend

    def left(self, kept: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        return self._spend.left("macs", kept)

    def costs(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(self._spend.costs("macs"))


class Steady(Clock):
    """A machine on which time is overhead plus MACs: pruning helps less than predicted."""

    def __init__(self, overhead: float, found: list[float]) -> None:
        self._overhead = overhead
        self._found = found
        self._whole = cost(chain()).macs

    def note(self) -> str:
        return "it forgets"

    def ratio(self, model: Model) -> float:
        share = cost(model).macs / self._whole
        self._found.append((share + self._overhead) / (1 + self._overhead))
        return self._found[-1]

    def predictor(self, model: Model, coupling: Coupling, align: int) -> Predicted:  # type: ignore[override]
        return Predicted(Spend(model, coupling))
