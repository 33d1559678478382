# SPDX-License-Identifier: Apache-2.0
"""How nodes of an older ai.onnx definition are written in the next one, and when they cannot be.

Each step is a check (the reason it cannot be done, or None) and an edit; the checks of all nodes run before
the first edit. The facts are those of the operators' change log and of each operator's old and new
documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..graph_ir import DataType, Node, Rewriter, constant
from ..graph_ir.ops import dims, float_attr, input_at, int_attr, ints_attr, is_read, string_attr

Check = Callable[[Node, int], str | None]
Apply = Callable[[Node, Rewriter, int], None]

_MAX = float(np.finfo(np.float32).max)  # the default bounds of Clip 6
_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare"
)


class Step(NamedTuple):
    """One redefinition: why it cannot be followed, if so, and the edit (both are given the final opset)."""

    check: Check
    apply: Apply


def _fine(_: Node, _target: int) -> str | None:
    return None


def _nothing(_node: Node, _rw: Rewriter, _target: int) -> None:
    """Form and meaning stay, once the check has passed."""


def _operand(
    node: Node, rw: Rewriter, index: int, what: str, data: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    rw.set_input(node, index, rw.constant(data, f"{node.outputs[0].name}_{what}", node))


def _to_inputs(*names: str) -> Step:
    """INTS attributes that became int64 inputs, in this order after the data."""

    def apply(node: Node, rw: Rewriter, _: int) -> None:
        for index, name in enumerate(names, 1):
            values = ints_attr(node, name)
            if values is not None:
                rw.set_attribute(node, name, None)
                _operand(node, rw, index, name, np.array(values, np.int64))

    return Step(_fine, apply)


def _top_k(node: Node, rw: Rewriter, _: int) -> None:
    k = int_attr(node, "k", 0)
    rw.set_attribute(node, "k", None)
    _operand(node, rw, 1, "k", np.array([k], np.int64))


def dtype_of(node: Node) -> DataType | None:
    """The type of what a node reads first, else of what it gives; None when neither is known."""
    x = input_at(node, 0)
    return (None if x is None else x.dtype) or node.outputs[0].dtype


def _pad_check(node: Node, _: int) -> str | None:
    if float_attr(node, "value", 0.0) and dtype_of(node) is None:
        return "the type of what it pads is not known (run infer-shapes first)"
    return None


def _pad(node: Node, rw: Rewriter, _: int) -> None:
    value, dtype = float_attr(node, "value", 0.0), dtype_of(node)
    pads = ints_attr(node, "pads") or []
    for name in ("pads", "value"):
        rw.set_attribute(node, name, None)
    _operand(node, rw, 1, "pads", np.array(pads, np.int64))
    if value and dtype is not None:
        _operand(node, rw, 2, "value", np.array(value, dtype.numpy()))


def _clip_bounds(node: Node) -> tuple[float, float]:
    return float_attr(node, "min", -_MAX), float_attr(node, "max", _MAX)


def _clip_check(node: Node, _: int) -> str | None:
    return (
        "the type of what it clips is not known (run infer-shapes first)" if dtype_of(node) is None else None
    )


def _clip(node: Node, rw: Rewriter, _: int) -> None:
    low, high = _clip_bounds(node)
    dtype = dtype_of(node)
    assert dtype is not None
    for name in ("min", "max"):
        rw.set_attribute(node, name, None)
    with np.errstate(over="ignore"):
        for index, name, bound, default in ((1, "min", low, -_MAX), (2, "max", high, _MAX)):
            # Left out, a bound is the extreme of the dtype from opset 11 on; before, that of float.
            if bound != default or dtype != DataType.FLOAT:
                _operand(node, rw, index, name, np.array(bound).astype(dtype.numpy()))


def _batch_norm_9(node: Node, _: int) -> str | None:
    return None if int_attr(node, "spatial", 1) == 1 else "spatial=0 has no newer form"


def _drop(name: str) -> Apply:
    def apply(node: Node, rw: Rewriter, _: int) -> None:
        if name in node.attributes:
            rw.set_attribute(node, name, None)

    return apply


def _one_output(node: Node, _: int) -> str | None:
    return None if len(node.outputs) == 1 else "outputs beyond the first changed their meaning"


def _unread_mask(node: Node, _: int) -> str | None:
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is not None and is_read(mask):
        return "its mask became bool"
    return None


def _summed_over(node: Node) -> tuple[int, tuple[int | str | None, ...] | None, bool]:
    """The axis (from the front, if the rank is known), all dimensions, and whether later ones are 1."""
    axis, shape = int_attr(node, "axis", 1), dims(node.inputs[0]) or dims(node.outputs[0])
    axis = axis + len(shape) if shape is not None and axis < 0 else axis
    return axis, shape, shape is not None and axis < len(shape) and all(d == 1 for d in shape[axis + 1 :])


def _softmax_check(node: Node, target: int) -> str | None:
    """Before opset 14, Reshape cannot write a 0 but where the matrix has it at the same place."""
    axis, shape, alone = _summed_over(node)
    kept = {0} if axis > 1 else {0, 1} if axis == 1 else {1}
    if target >= 14 or alone:
        return None
    if shape is not None and all(i in kept or (isinstance(d, int) and d > 0) for i, d in enumerate(shape)):
        return None
    return (
        f"what may be empty has no form in it before opset 14{'' if shape else ' (run infer-shapes first)'}"
    )


def _softmax(node: Node, rw: Rewriter, target: int) -> None:
    """Until 12 the input is one matrix, split before `axis`; from 13 on only `axis` itself is summed over.

    The same when all later dimensions are 1; else Flatten, the operator on the last axis, and Reshape back.
    """
    x, (axis, shape, alone) = node.inputs[0], _summed_over(node)
    assert x is not None
    if alone:
        rw.set_attribute(node, "axis", -1 if shape is not None and axis == len(shape) - 1 else axis)
        return
    hint = node.outputs[0].name or node.op_type
    with rw.standing_for([node]):
        flat = rw.node("Flatten", [x], {"axis": axis}, before=node, name=f"{hint}_flat").outputs[0]
        summed = rw.node(node.op_type, [flat], {"axis": -1}, before=node, name=f"{hint}_rows").outputs[0]
        whole = rw.node("Shape", [x], before=node, name=f"{hint}_shape").outputs[0]
        back = rw.node("Reshape", [summed, whole], {"allowzero": 1} if target >= 14 else (), before=node)
        rw.replace(node.outputs[0], back.outputs[0])
        rw.erase(node)


def _scales(node: Node) -> list[float] | None:
    attr = node.attributes.get("scales")
    if attr is not None:
        return [float(s) for s in attr.as_floats()]
    data = constant(input_at(node, 1))
    return None if data is None else [float(s) for s in data.reshape(-1)]


def _enlarges(node: Node, _: int) -> str | None:
    scales = _scales(node)
    if scales is None:
        return "its scales are not constant"
    if min(scales, default=1.0) < 1.0:
        return "it shrinks, and how pixels were then picked was left to the runtime"
    if string_attr(node, "mode", "nearest") not in ("nearest", "linear"):
        return "its mode has no newer form"
    return None


def _upsample_9(node: Node, rw: Rewriter, _: int) -> None:
    scales = _scales(node)
    rw.set_attribute(node, "scales", None)
    _operand(node, rw, 1, "scales", np.array(scales, np.float32))


def _upsample_10(node: Node, rw: Rewriter, target: int) -> None:
    with rw.standing_for([node]):
        made = rw.node("Resize", list(node.inputs), list(node.attributes.values()), before=node)
        rw.replace(node.outputs[0], made.outputs[0])
        rw.erase(node)
    if target >= 11:
        _resize_11(made, rw, target)


def _resize_11(node: Node, rw: Rewriter, target: int) -> None:
    scales = node.inputs[1]
    if target < 13:
        _operand(node, rw, 1, "roi", np.zeros(0, np.float32))
    else:
        rw.set_input(node, 1, None)
    rw.set_input(node, 2, scales)
    rw.set_attribute(node, "coordinate_transformation_mode", "asymmetric")
    if string_attr(node, "mode", "nearest") == "nearest":
        rw.set_attribute(node, "nearest_mode", "floor")


def _resize_13(node: Node, _: int) -> str | None:
    mode = string_attr(node, "coordinate_transformation_mode", "half_pixel")
    return "tf_half_pixel_for_nn was removed" if mode == "tf_half_pixel_for_nn" else None


def _explicit_pads(node: Node, _: int) -> str | None:
    if (
        string_attr(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
        or "output_shape" in node.attributes
    ):
        return "the side odd padding goes to was redefined"
    return None


def _scatter(node: Node, rw: Rewriter, _: int) -> None:
    with rw.standing_for([node]):
        made = rw.node("ScatterElements", list(node.inputs), list(node.attributes.values()), before=node)
        rw.replace(node.outputs[0], made.outputs[0])
        rw.erase(node)


def _roi_align(node: Node, rw: Rewriter, _: int) -> None:
    rw.set_attribute(node, "coordinate_transformation_mode", "output_half_pixel")


def _split_18(node: Node, rw: Rewriter, _: int) -> None:
    if input_at(node, 1) is None:
        rw.set_attribute(node, "num_outputs", len(node.outputs))


def _grid_sample(node: Node, rw: Rewriter, _: int) -> None:
    renamed = {"bilinear": "linear", "bicubic": "cubic"}
    mode = string_attr(node, "mode", "bilinear")
    rw.set_attribute(node, "mode", renamed.get(mode, mode))


def _average_pool_19(node: Node, _: int) -> str | None:
    if int_attr(node, "ceil_mode", 0) and int_attr(node, "count_include_pad", 0):
        return "how ceil_mode counts padding was redefined"
    return None


def _is_float(node: Node, _: int) -> str | None:
    dtype = dtype_of(node)
    if dtype is None:
        return "its type is not known (run infer-shapes first)"
    return None if dtype.is_floating_point() else "integers are no longer allowed"


STEPS: dict[tuple[str, int], Step] = {
    ("BatchNormalization", 9): Step(_batch_norm_9, _drop("spatial")),
    ("Upsample", 9): Step(_enlarges, _upsample_9),
    ("Dropout", 10): Step(_unread_mask, _nothing),
    ("Slice", 10): _to_inputs("starts", "ends", "axes"),
    ("TopK", 10): Step(_fine, _top_k),
    ("Upsample", 10): Step(_enlarges, _upsample_10),
    ("Clip", 11): Step(_clip_check, _clip),
    ("ConvTranspose", 11): Step(_explicit_pads, _nothing),
    ("Pad", 11): Step(_pad_check, _pad),
    ("Resize", 11): Step(_enlarges, _resize_11),
    ("Scatter", 11): Step(_fine, _scatter),
    ("Dropout", 12): Step(_fine, _drop("ratio")),  # only training reads it, and there was none before 12
    ("Erf", 13): Step(_is_float, _nothing),
    ("Resize", 13): Step(_resize_13, _nothing),
    ("Softmax", 13): Step(_softmax_check, _softmax),
    ("LogSoftmax", 13): Step(_softmax_check, _softmax),
    ("Hardmax", 13): Step(_softmax_check, _softmax),
    ("ReduceSum", 13): _to_inputs("axes"),
    ("Split", 13): _to_inputs("split"),
    ("Squeeze", 13): _to_inputs("axes"),
    ("Unsqueeze", 13): _to_inputs("axes"),
    ("BatchNormalization", 14): Step(_one_output, _nothing),
    ("RoiAlign", 16): Step(_fine, _roi_align),
    ("Split", 18): Step(_fine, _split_18),
    **{(name, 18): _to_inputs("axes") for name in _REDUCTIONS.split()},
    ("AveragePool", 19): Step(_average_pool_19, _nothing),
    ("GridSample", 20): Step(_fine, _grid_sample),
}
