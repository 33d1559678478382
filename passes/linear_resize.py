# SPDX-License-Identifier: Apache-2.0
"""What the rules for linear Resize agree on: when a Resize is no more than linear interpolation."""

from __future__ import annotations

from ..graph_ir import DataType, Node, Value
from ..graph_ir.ops import has_reference_attribute, int_attr, string_attr
from .pattern import Miss


def not_plainly_linear(node: Node, x: Value, opset: int) -> Miss | None:
    """Why a Resize of x is more than linear interpolation, each axis for itself; None when it is just that.

    Where it neither crops nor smooths, `extrapolation_value` means nothing (ONNX Resize), and a place of the
    result beyond the ends of x takes the end. Sizes, scales and axes are the caller's to judge.
    """
    if opset < 11 or has_reference_attribute(node):
        return Miss("opset below 11, with other coordinates, or an attribute of the caller's")
    if x.dtype is not DataType.FLOAT or string_attr(node, "mode", "nearest") != "linear":
        return Miss("not linear interpolation of float")
    if string_attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return Miss("it crops")
    if (
        int_attr(node, "antialias", 0)
        or string_attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        return Miss("it smooths, or keeps the aspect ratio")
    return None
