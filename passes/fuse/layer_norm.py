# SPDX-License-Identifier: Apache-2.0
"""Normalisation of layers from its parts.

LayerNormalization: Ba, Kiros and Hinton, Layer Normalization, arXiv:1607.06450. RMSNormalization: Zhang and
Sennrich, Root Mean Square Layer Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import from_front, int_attr, ints_at, ints_attr, is_op, rank, static_shape
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, commute, const, either, maybe, op, var
from .activations import Fusion, exact, float_type, fuse_all, is_scalar, keeps_rank, near

_MEANS = ("ReduceMean", "GlobalAveragePool")  # tf2onnx writes the second over the last of three axes
_X = var("x")
_MEAN = op(_MEANS, _X, maybe(const("axes")))
_D = op("Sub", _X, _MEAN)
_D2 = op("Sub", _X, _MEAN)  # older exporters subtract twice
_VARIANCES = tuple(
    op(_MEANS, square, maybe(const("axes2")))
    for d in (_D, _D2)
    for square in (op("Pow", d, near("two", 2.0)), op("Mul", d, d))
)
_MOMENTS = tuple(
    op("Sub", op(_MEANS, square, maybe(const("axes2"))), op("Mul", _MEAN, _MEAN))
    for square in (op("Mul", _X, _X), op("Pow", _X, near("two", 2.0)))
)
_SPREADS = (*_VARIANCES, *_MOMENTS, *(commute("Max", moment, near("floor", 0.0)) for moment in _MOMENTS))
_ROOTS = tuple(op("Sqrt", commute("Add", spread, const("epsilon"))) for spread in _SPREADS)
_NORMALISED = either(
    *(op("Div", _D, root) for root in _ROOTS),
    *(commute("Mul", _D, op("Reciprocal", root)) for root in _ROOTS),
)
_SCALED = commute("Mul", _NORMALISED, var("scale"))
_FACTOR = commute("Mul", op("Reciprocal", either(*_ROOTS)), var("scale"))
_LEVEL = either(
    commute("Add", commute("Mul", op("Neg", _MEAN), _FACTOR), var("bias")),
    op("Sub", var("bias"), commute("Mul", _MEAN, _FACTOR)),
)
_SQUARES = tuple(
    op("ReduceMean", square, maybe(const("axes")))
    for square in (op("Pow", _X, near("two", 2.0)), op("Mul", _X, _X))
)
_RMS = either(*(op("Sqrt", commute("Add", square, const("epsilon"))) for square in _SQUARES))
_BY_RMS = either(
    op("Div", _X, _RMS),
    commute("Mul", _X, op("Reciprocal", _RMS)),
    commute("Mul", _X, op("Div", near("one", 1.0), _RMS)),
)


class LayerNormOf(Fusion):
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias = LayerNormalization(x, scale, bias).

    Both means run over the same last axes and keep them; the square may be a product, the quotient a product
    with the reciprocal, and the difference may be made twice. The variance may be mean(x^2) - mean^2, or the
    larger of that and 0, as in JAX; the operator is closer then. Valid when x's normalised dimensions are
    known and scale and bias are as large (leading 1s aside), so that nothing is broadcast. Not valid: other
    axes or powers, epsilon not one positive number, a part read elsewhere, double (the operator computes in
    float), below opset 17.
    """

    since: ClassVar[int] = 17
    operator: ClassVar[str] = "LayerNormalization"
    root = commute("Add", _SCALED, var("bias"))

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        found = self.axis(m)
        return found if isinstance(found, Miss) else None

    def axis(self, m: Match) -> int | Miss:
        """The first normalised axis, counted from the end."""
        x = m["x"]
        allowed = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
        dtype = float_type(x, m.root.outputs[0], *allowed)
        if isinstance(dtype, Miss):
            return dtype
        if not exact(m, DataType.FLOAT, two=2.0, one=1.0):  # every type holds both
            return Miss("another power or numerator")
        extent = rank(x)
        if extent is None or x.shape is None:
            return Miss("shape not known")
        means = [n for n in m.nodes.values() if is_op(n, *_MEANS)]
        axes = {_axes(n, extent) for n in means}
        if len(axes) != 1 or not all(int_attr(n, "keepdims", 1) == 1 for n in means):
            return Miss("means over other axes")
        (over,) = axes
        if not over or over != tuple(range(over[0], extent)):
            return Miss("not the last axes")
        epsilon = constant(m["epsilon"])
        if epsilon is None or not is_scalar(m["epsilon"]) or float(epsilon.reshape(-1)[0]) <= 0:
            return Miss("epsilon is not one positive number")
        if not keeps_rank(m, x, "epsilon", "two", "floor", "one"):
            return Miss("a constant raises the rank")
        size = tuple(d for d in list(x.shape)[over[0] :] if isinstance(d, int))
        if len(size) != len(over):
            return Miss("normalised size not known")
        for name in ("scale", "bias"):
            value = m.get(name)
            if value is not None and not _covers(value, size, extent):
                return Miss(f"{name} is not of the normalised size")
        return over[0] - extent

    def fuse(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One node."""
        axis = self.axis(m)
        epsilon = constant(m["epsilon"])
        if isinstance(axis, Miss) or epsilon is None:
            return Miss("declined")
        inputs = [m["x"], _trimmed(m["scale"], -axis, m.root, rw)]
        if m.get("bias") is not None:
            inputs.append(_trimmed(m["bias"], -axis, m.root, rw))
        attributes = {"axis": axis, "epsilon": float(epsilon.reshape(-1)[0])}
        return rw.node(self.operator, inputs, attributes, before=m.root).outputs[0]


class LayerNormByFactor(LayerNormOf):
    """The same as x f + (bias - mean f) with f = scale / sqrt(variance + epsilon), as in TensorFlow."""

    root = commute("Add", commute("Mul", _X, _FACTOR), _LEVEL)


class LayerNormWithoutBias(LayerNormOf):
    """The same without a bias."""

    root = _SCALED


class RmsNormOf(LayerNormOf):
    """x / sqrt(mean(x^2) + epsilon) * scale = RMSNormalization(x, scale).

    The quotient may be a product with the reciprocal. Limits as for `LayerNormOf`, from opset 23 on.
    onnxruntime finds the quotient by itself, but not PyTorch's product with Reciprocal.
    """

    since: ClassVar[int] = 23
    operator: ClassVar[str] = "RMSNormalization"
    root = commute("Mul", _BY_RMS, var("scale"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The fused value, or why not; None for what is left of LayerNormalization."""
        return None if _is_centred(m["x"]) else super().rewrite(m, rw)

    def axis(self, m: Match) -> int | Miss:
        """The first normalised axis, counted from the end."""
        return Miss("centred") if _is_centred(m["x"]) else super().axis(m)


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """Fuse a spelled-out layer normalisation into LayerNormalization, from opset 17 on.

    That by the root mean square becomes RMSNormalization, from opset 23 on. The algebra and limits stand with
    the rules `LayerNormOf`, `LayerNormByFactor` and `RmsNormOf`. It needs shapes (`infer-shapes`).

    Attributes:
        raise_opset: raise the opset to 17 or 23, if that is safe (`raise-opset`).
    """

    name = "fuse-layer-norm"
    exact = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules, those with a bias first."""
        rules = [LayerNormOf(), LayerNormByFactor()]
        with_bias = fuse_all(model, ctx, rules, raising=self.raise_opset)
        plain = fuse_all(model, ctx, [LayerNormWithoutBias()], raising=self.raise_opset)
        return fuse_all(model, ctx, [RmsNormOf()], raising=self.raise_opset) or plain or with_bias


def _is_centred(value: Value) -> bool:
    node = value.producer()
    if node is None or not is_op(node, "Sub"):
        return False
    makers = [None if v is None else v.producer() for v in node.inputs]
    return any(maker is not None and is_op(maker, *_MEANS) for maker in makers)


def _axes(node: Node, extent: int) -> tuple[int, ...]:
    """The axes a mean runs over, sorted and counted from the front; () when not known."""
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, extent))
    axes = ints_attr(node, "axes") or ints_at(node, 1)
    return tuple(sorted(from_front(axes, extent) or ()))


def _covers(value: Value, size: tuple[int, ...], extent: int) -> bool:
    """Whether the value has the normalised shape, after leading 1s that do not raise the rank."""
    shape = static_shape(value)
    if shape is None or len(shape) > extent or len(shape) < len(size):
        return False
    lead = len(shape) - len(size)
    return shape[lead:] == size and (
        lead == 0 or (all(d == 1 for d in shape[:lead]) and constant(value) is not None)
    )


def _trimmed(value: Value, length: int, near_node: Node, rw: Rewriter) -> Value:
    """The value with its last `length` dimensions only."""
    data = constant(value)
    if data is None or data.ndim == length:
        return value
    return rw.constant(np.ascontiguousarray(data.reshape(data.shape[-length:])), value.name or "", near_node)
