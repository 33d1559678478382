# SPDX-License-Identifier: Apache-2.0
"""One view of Conv, ConvTranspose, Gemm and MatMul with constant weights: y = W x + b, channel by channel.

A factor s and a shift t per output channel fold as   s (W x + b) + t = (s W) x + (s b + t),
per input channel as                                  W (s x + t) + b = (W s) x + (W t + b).
The first always holds; the second only where W x sums over the same inputs at every place: no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph_ir import INFERRED, DataType, Node, Rewriter, Value
from ...graph_ir.ops import (
    array_of,
    constant_tensor,
    dims,
    float_attr,
    int_attr,
    ints_attr,
    rank,
    string_attr,
)
from ..linear.rows import RowView
from ..pattern import Match, Miss, commute, const, either, maybe, op, var
from .weights import FLOATS, Array, Wide, channels, rounded, store_weight, typed, wide

_W, _B, _X = const("w"), maybe(const("b")), var("x")
_PRODUCTS = (op(("Conv", "ConvTranspose", "Gemm"), _X, _W, _B), op("MatMul", _X, _W), op("MatMul", _W, _X))
_ADDED = tuple(commute("Add", product, const("b")) for product in _PRODUCTS[1:])
LINEAR = either(*_PRODUCTS, *_ADDED)


@dataclass(frozen=True)
class Linear:
    """A linear operator with constant weights.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: its constant.
        dtype: the weight's type.
        bias: the constant added per output channel, if any.
        x: the other operand.
        w: the weight's data.
        b: float64 [outputs], the bias with Gemm's beta applied; None without one.
        read: the weight as rows, one for each output channel.
        out_axis: their axis in the result, counted from the end (negative).
        out_rank: the rank the result has at least; exact when `rank_known`.
        rank_known: see there.
    """

    node: Node
    weight: Value
    dtype: DataType
    bias: Value | None
    x: Value
    w: Array
    b: Wide | None
    read: RowView
    out_axis: int
    out_rank: int
    rank_known: bool

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.read.outputs

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.read.groups * self.read.inputs

    @property
    def in_axis(self) -> int:
        """Their axis in x, counted from the end."""
        return self.read.in_axis

    @property
    def group(self) -> int:
        """Groups of a convolution; 1 for a product."""
        return self.read.groups

    @property
    def weight_on_left(self) -> bool:
        """Whether it is MatMul(weight, x)."""
        return not self.read.slot

    def rows(self, array: Wide) -> Wide:
        """An array shaped as the weight, seen as [outputs, ..., what each sums over]."""
        return self.read.rows(array)

    def after(self, s: Wide, t: Wide) -> Folded | Miss:
        """Fold y -> s y + t, with float64 [outputs] s and t."""
        rows = self.rows(wide(self.w))
        scaled = rows * s.reshape(-1, *[1] * (rows.ndim - 1))
        bias = t if self.b is None else self.b * s + t
        return self._folded(scaled, bias)

    def before(self, s: Wide, t: Wide) -> Folded | Miss:
        """Fold x -> s x + t, with float64 [inputs] s and t."""
        rows = self.rows(wide(self.w))
        kind = self.node.op_type
        scaled = self._along_inputs(rows, s)
        shift = self._along_inputs(rows, t).reshape(self.outputs, -1).sum(axis=1)
        shift *= float_attr(self.node, "alpha", 1.0)  # only Gemm has one
        if t.any():
            if kind in ("Conv", "ConvTranspose") and not self._unpadded():
                return Miss("padding: a shift before it would not reach the border")
            if rows.ndim != 2 and kind == "MatMul":
                return Miss("weight is a batch: the shift is no bias")
        return self._folded(scaled, shift if self.b is None else self.b + shift)

    def scaled(self, before: Wide, after: Wide) -> Folded | Miss:
        """Fold x -> before x and y -> after y, with float64 [inputs] and [outputs], in one rounding."""
        rows = self._along_inputs(self.rows(wide(self.w)), before)
        bias = np.zeros(self.outputs) if self.b is None else self.b * after
        return self._folded(rows * after.reshape(-1, *[1] * (rows.ndim - 1)), bias)

    def _along_inputs(self, rows: Wide, s: Wide) -> Wide:
        """Rows times one factor for each input channel: a product's are its last axis, also in a batch."""
        if not self.read.is_conv:
            return rows * s
        blocks = rows.reshape(self.group, self.outputs // self.group, *rows.shape[1:])
        spread = (self.group, 1, rows.shape[1], *[1] * (rows.ndim - 2))
        return (blocks * s.reshape(spread)).reshape(rows.shape)

    def _unpadded(self) -> bool:
        if self.node.op_type != "Conv":
            return False
        auto = string_attr(self.node, "auto_pad", "NOTSET")
        if auto == "NOTSET":
            return not any(ints_attr(self.node, "pads") or [])
        return auto == "VALID" or all(d == 1 for d in self.w.shape[2:])

    def _folded(self, rows: Wide, bias: Wide) -> Folded | Miss:
        weight = rounded(rows, self.w, self.dtype, bias)
        small = rounded(bias.reshape(1, -1), self.w, self.dtype, np.zeros(1))
        if weight is None or small is None:
            finite = np.isfinite(rows).all() and np.isfinite(bias).all()
            return Miss(f"folded weights {'overflow or underflow' if finite else 'are not finite'}")
        keeps_bias = self.bias is not None or bool(bias.any())
        return Folded(
            self, np.ascontiguousarray(self.read.back(weight)), small.reshape(-1) if keeps_bias else None
        )


@dataclass(frozen=True)
class Folded:
    """New weights for a linear operator, in its dtype."""

    linear: Linear
    weight: Array
    bias: Array | None

    def apply(self, x: Value, rw: Rewriter, root: Node) -> Value | None:
        """Give the operator the new weights, and x to read; returns what stands for the root's result.

        That is None where the operator is the root itself. It is edited in place, and a weight that it alone
        reads keeps its name; only a product that gets its first bias is a new one, with an Add behind it.
        """
        node, old = self.linear.node, self.linear
        if node.op_type == "MatMul" and self.bias is not None:
            return self.emit(x, rw, root)
        left = int(old.weight_on_left)
        if node.inputs[left] is not x:
            rw.set_input(node, left, x)
        store_weight(node, 1 - left, self.weight, old.weight, rw)
        if self.bias is not None:
            store_weight(node, 2, self.bias, old.bias, rw, f"{old.weight.name or 'weight'}_bias")
            if "beta" in node.attributes.data:
                rw.set_attribute(node, "beta", None)
        rw.remade(node, result=node is not root)
        return None if node is root else node.outputs[0]

    def emit(self, x: Value, rw: Rewriter, before: Node) -> Value:
        """Insert the operator with the new weights, reading x; returns its result."""
        old = self.linear
        node = old.node
        attributes = [a for a in node.attributes.values() if a.name != "beta"]
        weight = rw.constant(self.weight, old.weight.name or "weight", before)
        bias = None
        if self.bias is not None:
            data = self.bias.reshape(-1, 1) if old.weight_on_left else self.bias
            hint = old.bias.name if old.bias is not None else f"{old.weight.name or 'weight'}_bias"
            bias = rw.constant(data, hint or "bias", before)
        name = node.name or node.op_type
        if node.op_type != "MatMul":
            operands = [x, weight] if bias is None else [x, weight, bias]
            return rw.node(node.op_type, operands, attributes, before=before, name=name).outputs[0]
        sides = [weight, x] if old.weight_on_left else [x, weight]
        product = rw.node("MatMul", sides, before=before, name=name).outputs[0]
        if bias is None:
            return product
        product.type, product.shape = node.outputs[0].type, node.outputs[0].shape
        product.meta[INFERRED] = True
        return rw.node("Add", [product, bias], before=before, name=f"{name}_bias").outputs[0]


def linear_of(m: Match, rw: Rewriter) -> Linear | Miss:
    """The linear operator that `LINEAR` matched.

    Misses when ranks, channels or the bias's shape are not what the operator's specification says, when the
    dtype is not a float, and below opset 7, where broadcasting had attributes of its own.
    """
    node = next(m.nodes[p] for p in _PRODUCTS if p in m.nodes)
    return view(node, m["x"], m["w"], m.get("b"), rw.opset(node))


def view(node: Node, x: Value, weight: Value, bias: Value | None, opset: int) -> Linear | Miss:
    """See `linear_of`; a MatMul's bias is added by an Add behind it."""
    tensor = constant_tensor(weight)
    if tensor is None or (dtype := tensor.dtype) not in FLOATS:
        return Miss("weight is not a float constant")
    w = array_of(tensor)
    if w.size == 0:
        return Miss("weight is empty")
    kind = node.op_type
    if opset < 7 and kind in ("Gemm", "MatMul"):
        return Miss("opset below 7")
    shape = w.shape
    if kind in ("Conv", "ConvTranspose"):
        group = int_attr(node, "group", 1)
        if w.ndim < 3 or group < 1 or shape[0] % group:
            return Miss("weight is not shaped as a convolution's")
        ranks = (1 - w.ndim, w.ndim, True)
    elif kind == "Gemm":
        if w.ndim != 2:
            return Miss("weight is not a matrix")
        ranks = (-1, 2, True)
    else:
        found = _product_ranks(node, x, weight, w.ndim)
        if isinstance(found, Miss):
            return found
        ranks = found
    read = RowView(node, shape, 0 if kind == "MatMul" and node.inputs[0] is weight else 1)
    b = None
    if bias is not None:
        # A convolution's bias is [outputs] whatever its rank; the others broadcast theirs.
        axis, least = (-1, 1) if read.is_conv else ranks[:2]
        vector = channels(typed(bias), axis, read.outputs, least)
        if vector is None:
            return Miss("bias is not one value a channel")
        b = vector * float_attr(node, "beta", 1.0)
    return Linear(node, weight, dtype, bias, x, w, b, read, *ranks)


def _product_ranks(node: Node, x: Value, weight: Value, ndim: int) -> tuple[int, int, bool] | Miss:
    """A MatMul's `out_axis`, `out_rank` and `rank_known`."""
    if ndim < 2:
        return Miss("weight is a vector")
    x_rank = rank(x)
    if node.inputs[0] is weight:
        if x_rank is None or x_rank < 2:
            return Miss("rank of the right operand is unknown or one")
        return (-2, max(x_rank, ndim), True)
    # A vector on the left loses its axis in the result: only the weight's own rank less one is sure then.
    if x_rank is None:
        return (-1, ndim - 1, False)
    return (-1, max(x_rank, ndim) if x_rank > 1 else ndim - 1, True)


def channels_of_input(array: Array, x: Value, linear: Linear) -> Wide | Miss:
    """A broadcast operand of x in front of a linear operator as float64 [inputs].

    Misses unless the operand provably leaves the shape of x as it is: x could be one channel that the operand
    makes many.
    """
    known = dims(x)
    # Conv and Gemm read a value of the weight's rank; an operand of a lower one leaves it to x to have it.
    unknown = 0 if linear.node.op_type == "MatMul" else linear.w.ndim - 1
    least = unknown if known is None else len(known)
    vector = channels(array, linear.in_axis, linear.inputs, least)
    if vector is None:
        return Miss("operand is not one value a channel, or may enlarge the input")
    if array.size != 1 and (known is None or known[linear.in_axis] != linear.inputs):
        return Miss("input channels are unknown")
    return vector
