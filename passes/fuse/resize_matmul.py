# SPDX-License-Identifier: Apache-2.0
"""Linear Resize of the last two axes as two matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_op, string_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..linear_resize import not_plainly_linear
from ..pattern import Match, Miss, Rule, maybe, op, var

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Multiplications for each element of the result at which onnxruntime's Resize is as fast (measured on x86).
MOST_PRODUCTS = 96
_TO_NHWC = [0, 2, 3, 1]


def interpolation(size: int, new: int, scale: float, mode: str) -> NDArray[np.float64] | None:
    """The matrix [new, size] of linear interpolation along one axis; None for an unknown coordinate mode.

    ONNX Resize, `coordinate_transformation_mode`: a place of the result comes from x between two elements,
    and these weigh as they are near; beyond the ends the end counts.
    """
    place = np.arange(new, dtype=np.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        x = (place + 0.5) / scale - 0.5
    elif mode == "pytorch_half_pixel":
        x = np.zeros(new)
    elif mode == "align_corners":
        x = place * (size - 1) / (new - 1) if new > 1 else np.zeros(new)
    elif mode == "asymmetric":
        x = place / scale
    else:
        return None
    x = np.clip(x, 0, size - 1)
    low = np.floor(x).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((new, size))
    rows = np.arange(new)
    np.add.at(matrix, (rows, low), 1 - (x - low))
    np.add.at(matrix, (rows, high), x - low)
    return matrix


class LinearResize(Rule):
    """Resize of [N, C, H, W] to [N, C, H', W']."""

    root: ClassVar = op("Resize", var("x"), maybe(var("roi")), maybe(var("scales")), maybe(var("sizes")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """Two products, in the order that takes fewer."""
        node, x = m.root, m["x"]
        found = _factors(node, x, rw)
        if isinstance(found, Miss):
            return found
        by_row, by_column = found
        (new_h, h), (new_w, w) = by_row.shape, by_column.shape
        rows = rw.constant(by_row, "interpolation", node)
        columns = rw.constant(np.array(np.transpose(by_column), np.float32, order="C"), "interpolation", node)
        if new_w * w * h + new_h * h * new_w <= new_h * h * w + new_h * w * new_w:
            half = rw.node("MatMul", [x, columns], before=node).outputs[0]
            return rw.node("MatMul", [rows, half], before=node).outputs[0]
        half = rw.node("MatMul", [rows, x], before=node).outputs[0]
        return rw.node("MatMul", [half, columns], before=node).outputs[0]


def _factors(node: Node, x: Value, rw: Rewriter) -> tuple[NDArray[np.float32], NDArray[np.float32]] | Miss:
    """What the last two axes are multiplied by: [H', H] and [W', W]."""
    if (declined := not_plainly_linear(node, x, rw.opset(node))) is not None:
        return declined
    before, after = dims(x), dims(node.outputs[0])
    if before is None or after is None or len(before) != 4:
        return Miss("not a tensor of rank 4")
    if (reason := _refused(node)) is not None:
        return Miss(reason)
    sizes = [size for size in (*before[1:], *after[1:]) if isinstance(size, int) and size > 0]
    if len(sizes) != 6 or before[:2] != after[:2]:
        return Miss("other axes than the last two change, or sizes are not known")
    _, h, w, _, new_h, new_w = sizes
    if min(h + w * h / new_h, w + h * w / new_w) > MOST_PRODUCTS:
        return Miss("Resize is as fast as the products")
    if _has_faster(node, new_h / h, new_w / w):
        return Miss("the runtime has a faster kernel in this place")
    given = constant(input_at(node, 2))
    scales = None if given is None or given.size == 0 else [float(v) for v in given.reshape(-1)]
    if scales is not None and scales[:2] != [1.0, 1.0]:
        return Miss("other axes than the last two change, or sizes are not known")
    mode = string_attr(node, "coordinate_transformation_mode", "half_pixel")
    if mode == "align_corners" and scales is not None and [h * scales[2], w * scales[3]] != [new_h, new_w]:
        return Miss("where the corners lie is not agreed on for such scales")
    # Coordinates go by the scales where they, and not the sizes, are given.
    rows = interpolation(h, new_h, new_h / h if scales is None else scales[2], mode)
    columns = interpolation(w, new_w, new_w / w if scales is None else scales[3], mode)
    if rows is None or columns is None:
        return Miss(f"coordinates by {mode}")
    return rows.astype(np.float32), columns.astype(np.float32)


def _refused(node: Node) -> str | None:
    """Why linear interpolation is not between fixed sizes of all axes, in float; None when it is."""
    if int_attr(node, "exclude_outside", 0):
        return "what lies beyond the ends is left out"
    if ints_attr(node, "axes"):
        return "axes are named"
    if input_at(node, 2) is not None:
        array = constant(input_at(node, 2))
        if array is None:
            return "scales are not constant"
        if array.size not in (0, 4):
            return "scales are not one for each axis"
    if any(is_op(user, "QuantizeLinear") for user, _ in node.outputs[0].uses()):
        return "it is computed on codes"
    return None


def _has_faster(node: Node, up: float, across: float) -> bool:
    """Between convolutions the runtime keeps its blocked layout; channels-last has a kernel of its own."""
    users = [user for user, _ in node.outputs[0].uses()]
    whole = up.is_integer() and across.is_integer()
    last = any(is_op(user, "Transpose") and ints_attr(user, "perm") == _TO_NHWC for user in users)
    return last or (whole and any(is_op(user, "Conv", "Add", "Concat", "Relu") for user in users))


class ResizeToMatMul(Pass):
    """Compute linear Resize of the last two axes by matrix products, where these are faster.

    Interpolation along an axis is linear, y = A x, A [new, size] with two numbers in each row, or one at an
    end. For x [N, C, H, W]

        Resize(x) = R x S^T,    R [H', H], S [W', W]

    for every channel: two MatMuls, in the cheaper order. onnxruntime's Resize takes a few nanoseconds for
    each element, a product a hundredth of that, so this pays while H and W are small (masks and maps that are
    blown up to the picture's size).

    Not valid, so left alone: other modes than linear, antialias, exclude_outside, tf_crop_and_resize,
    half_pixel_symmetric, sizes that are not known, more axes than the last two, other types than float32.
    Not done between convolutions, where the runtime keeps its blocked layout, before a Transpose to channels
    last (see `resize-channels-last`), nor on codes. It is for onnxruntime on CPU. An infinite value
    spreads over its row and column, where Resize keeps it near: the claim is for finite values.
    """

    name: ClassVar[str] = "resize-to-matmul"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid and faster; True if anything changed."""
        return apply_rules(model, ctx, [LinearResize()])
