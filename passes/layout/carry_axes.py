# SPDX-License-Identifier: Apache-2.0
"""How operators that name axes carry a permutation: axis a of Transpose_p(x) is axis p[a] of x."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph_ir import Node, constant
from ...graph_ir.ops import dims, from_front, input_at, int_attr, ints_at, ints_attr, rank, string_attr
from .carry import Carry, Plan, same_layout, words
from .perms import Perm, back, extended, without

REDUCTIONS = words(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare"
)


def _written(node: Node, index: int, axes: list[int]) -> dict[str, Any]:
    """Changed axes, as an attribute or an operand, whichever the node has."""
    if "axes" in node.attributes:
        return {"attributes": {"axes": axes}}
    like = constant(input_at(node, index))
    return {"operands": {index: np.array(axes, np.int64 if like is None else like.dtype)}}


def _one_axis(default: int, since: int = 1) -> Carry:
    """Operators with one `axis` attribute whose results keep the rank."""

    def carry(node: Node, p: Perm, opset: int) -> Plan | None:
        axis = int_attr(node, "axis", default)
        if opset < since or not -len(p) <= axis < len(p):
            return None
        return same_layout(node, p, attributes={"axis": p[axis]})

    return carry


def _reduce(node: Node, p: Perm, _opset: int) -> Plan | None:
    extent = len(p)
    keeps = int_attr(node, "keepdims", 1) != 0
    if node.op_type in ("ArgMax", "ArgMin"):
        places = from_front([int_attr(node, "axis", 0)], extent)
        if places is None:
            return None
        changes: dict[str, Any] = {"attributes": {"axis": p[places[0]]}}
    elif "axes" in node.attributes or input_at(node, 1) is not None:
        given = ints_attr(node, "axes") if "axes" in node.attributes else ints_at(node, 1)
        places = from_front(given, extent)
        if not places:
            return None  # what an empty list means is told by another attribute
        changes = _written(node, 1, [p[a] for a in places])
    else:
        if int_attr(node, "noop_with_empty_axes", 0):
            return None
        places, changes = list(range(extent)), {}
    return Plan(p, (0,), (p if keeps else without(p, places),), **changes)


def _slice(node: Node, p: Perm, opset: int) -> Plan | None:
    if opset < 10:
        starts = ints_attr(node, "starts") or []
        places = from_front(ints_attr(node, "axes") or list(range(len(starts))), len(p))
        return None if places is None else same_layout(node, p, attributes={"axes": [p[a] for a in places]})
    if input_at(node, 3) is not None:
        axes = ints_at(node, 3)
    else:
        starts = dims(input_at(node, 1))
        count = starts[0] if starts is not None and len(starts) == 1 else None
        axes = list(range(count)) if isinstance(count, int) else None
    places, starts = from_front(axes, len(p)), input_at(node, 1)
    if places is None or starts is None or starts.dtype is None:
        return None
    # All of a Slice's operands have one type.
    return same_layout(node, p, operands={3: np.array([p[a] for a in places], starts.dtype.numpy())})


def _pad(node: Node, p: Perm, opset: int) -> Plan | None:
    extent = len(p)
    if opset >= 18 and input_at(node, 3) is not None:
        places = from_front(ints_at(node, 3), extent)
        return None if places is None else same_layout(node, p, **_written(node, 3, [p[a] for a in places]))
    pads = ints_attr(node, "pads") if opset < 11 else ints_at(node, 1)
    if opset < 2 or pads is None or len(pads) != 2 * extent:
        return None
    turned = [*back(p, pads[:extent]), *back(p, pads[extent:])]
    if opset < 11:
        return same_layout(node, p, attributes={"pads": turned})
    return same_layout(node, p, operands={1: np.array(turned, np.int64)})


def _squeeze(node: Node, p: Perm, _opset: int) -> Plan | None:
    places = from_front(ints_attr(node, "axes") or ints_at(node, 1), len(p))
    if not places:
        return None
    return Plan(p, (0,), (without(p, places),), **_written(node, 1, sorted(p[a] for a in places)))


def _unsqueeze(node: Node, p: Perm, _opset: int) -> Plan | None:
    given = ints_attr(node, "axes") or ints_at(node, 1)
    places = from_front(given, len(p) + len(given or ()))
    return Plan(p, (0,), (extended(p, places),)) if places else None


def _spatial_only(p: Perm, factors: list[Any] | None) -> bool:
    """Whether all but the first two axes of x keep their size: the layout runtimes resize in."""
    return factors is not None and len(factors) == len(p) and all(f == 1 for f in back(p, factors)[:2])


def _upsample(node: Node, p: Perm, opset: int) -> Plan | None:
    if opset < 9:
        attribute = node.attributes.get("scales")
        scales = None if attribute is None else list(attribute.as_floats())
        fits = scales is not None and _spatial_only(p, scales)
        return same_layout(node, p, attributes={"scales": back(p, scales)}) if scales and fits else None
    return _scaled(node, p, 1)


def _scaled(node: Node, p: Perm, index: int) -> Plan | None:
    scales = constant(input_at(node, index))
    if scales is None or not _spatial_only(p, scales.reshape(-1).tolist()):
        return None
    return same_layout(node, p, operands={index: np.array(back(p, scales.tolist()), scales.dtype)})


def _resize(node: Node, p: Perm, opset: int) -> Plan | None:
    """Constant scales or sizes, of what become the trailing axes only; the region of interest unused."""
    if opset < 11:
        return _scaled(node, p, 1)
    if string_attr(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    roi = input_at(node, 1)
    if roi is not None and ((data := constant(roi)) is None or data.size):
        return None
    axes = ints_attr(node, "axes")
    if axes is not None:
        places = from_front(axes, len(p))
        if places is None or any(p[a] < 2 for a in places):
            return None
        return same_layout(node, p, attributes={"axes": [p[a] for a in places]})
    sizes = input_at(node, 3)
    if sizes is None:
        return _scaled(node, p, 2)
    wanted, given = ints_at(node, 3), dims(node.inputs[0])
    if wanted is None or given is None or len(wanted) != len(p):
        return None
    keeps = [1 if w == g else 0 for w, g in zip(wanted, given, strict=True)]
    if not _spatial_only(p, keeps):
        return None
    return same_layout(node, p, operands={3: np.array(back(p, wanted), np.int64)})


def _tile(node: Node, p: Perm, opset: int) -> Plan | None:
    repeats = ints_at(node, 1)
    if opset < 6 or repeats is None or len(repeats) != len(p):
        return None
    return same_layout(node, p, operands={1: np.array(back(p, repeats), np.int64)})


def _expand(node: Node, p: Perm, _opset: int) -> Plan | None:
    shape = ints_at(node, 1)
    if shape is None or len(shape) > len(p):
        return None
    padded = [1] * (len(p) - len(shape)) + shape
    return same_layout(node, p, operands={1: np.array(back(p, padded), np.int64)})


def _gather(node: Node, p: Perm, _opset: int) -> Plan | None:
    places = from_front([int_attr(node, "axis", 0)], len(p))
    count = rank(input_at(node, 1))
    if places is None or count not in (0, 1):
        return None
    out = p if count == 1 else without(p, places)
    return Plan(p, (0,), (out,), attributes={"axis": p[places[0]]})


AXIS_CARRIES: dict[str, Carry] = {
    **dict.fromkeys((*REDUCTIONS, "ArgMax", "ArgMin"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _one_axis(-1, since=13)),
    "Split": _one_axis(0, since=2),
    "TopK": _one_axis(-1),
    "Slice": _slice,
    "Pad": _pad,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Upsample": _upsample,
    "Resize": _resize,
    "Tile": _tile,
    "Expand": _expand,
    "Gather": _gather,
}
