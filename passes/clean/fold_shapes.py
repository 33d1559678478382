# SPDX-License-Identifier: Apache-2.0
"""Folding of shape arithmetic whose result inference knows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...analysis.shapes import DATA, symbolic_data
from ...graph_ir import INFERRED, DataType, Model, Node, Rewriter, Shape, Value
from ...graph_ir.ops import STANDARD_DOMAINS, dims, input_at, int_attr, is_constant, static_shape
from ..base import Context, Exactness, Pass

_NUMPY = {DataType.INT64: np.int64, DataType.INT32: np.int32, DataType.BOOL: np.bool_}


class FoldShapes(Pass):
    """Replace integer and bool tensors that follow from the signature by constants, and fix Reshape targets.

    A Reshape whose target has one unknown element gets a constant target with -1 there (when all others are
    known and none is 0), or 0 where the element is the input's own dimension at the same place. One to the
    shape its input has already goes, if it is no output. An Expand's target has 1 for the input's own
    dimensions, and is a constant if only numbers are left. Needs infer-shapes. Not valid for dimensions the
    signature leaves open: those stay computed; nor for -1 beside a copied dimension under allowzero.

    A Range takes scalars; runtimes accept vectors of one element as long as they cannot see that they are
    vectors. Folding shapes may show them, so such operands are squeezed.
    """

    name: ClassVar[str] = "fold-shapes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        ranges = reshapes = expands = shapes = 0
        for graph in rewriter.graphs():
            for node in list(graph):
                op_type = node.op_type if node.domain in STANDARD_DOMAINS else ""
                if op_type == "Range":
                    ranges += _scalar_operands(node, rewriter)
                elif op_type == "Reshape":
                    reshapes += _fix_reshape(node, rewriter)
                elif op_type == "Expand":
                    expands += _fix_expand(node, rewriter)
                elif op_type != "Constant":
                    shapes += _fold_outputs(node, rewriter)
        ctx.counters.update({"range operands": ranges, "reshape targets": reshapes})
        ctx.counters.update({"expand targets": expands, "shapes": shapes})
        return rewriter.edits > 0


def _fold_outputs(node: Node, rewriter: Rewriter) -> int:
    folded = 0
    for output in node.outputs:
        if DATA not in output.meta.data:  # nothing is known of its contents: true of nearly all
            continue
        dtype = output.dtype
        if dtype is None or dtype not in _NUMPY:
            continue
        if output.is_graph_output() or not output.uses():
            continue
        data = symbolic_data(output)
        known = None if data is None else [e for e in data if isinstance(e, int)]
        if (
            data is None
            or known is None
            or len(known) != len(data)
            or not rewriter.allowed("fold-shapes", node)
        ):
            continue
        array = np.asarray(known, dtype=_NUMPY[dtype])
        rank = None if output.shape is None else len(output.shape)
        if rank == 0:
            array = array.reshape(())
        elif rank != 1:
            continue
        with rewriter.standing_for([node]):
            rewriter.replace(output, rewriter.constant(array, output.name or "shape", near=node))
        folded += 1
    return folded


def _scalar_operands(node: Node, rewriter: Rewriter) -> int:
    squeezed = 0
    for index, value in enumerate(node.inputs):
        if value is None or static_shape(value) != (1,) or not rewriter.allowed("fold-shapes", node):
            continue
        with rewriter.standing_for([node]):
            made = rewriter.node("Squeeze", [value], before=node, name=value.name or "").outputs[0]
            made.type, made.shape = value.type, Shape(())
            made.meta[INFERRED] = True
            rewriter.set_input(node, index, made)
        squeezed += 1
    return squeezed


def _fix_reshape(node: Node, rewriter: Rewriter) -> int:
    source, target = input_at(node, 0), input_at(node, 1)
    if source is None or target is None or is_constant(target):
        return 0
    data = symbolic_data(target)
    if data is None:
        return 0
    fixed = _reshape_target(data, source)
    if fixed is not None and {0, -1} <= {*fixed} and int_attr(node, "allowzero", 0):
        return 0  # with the attribute runtimes take -1 for an empty batch, without it they do not
    if fixed is None or not rewriter.allowed("fold-shapes", node):
        return 0
    result = node.outputs[0]
    with rewriter.standing_for([node]):
        if _is_shape_of(source, fixed) and not result.is_graph_output():
            rewriter.replace(result, source)
            rewriter.erase(node)
        else:
            made = rewriter.constant(np.asarray(fixed, np.int64), target.name or "shape", near=node)
            rewriter.set_input(node, 1, made)
            if int_attr(node, "allowzero", 0):  # no element is the number 0, so 0 may stand for a copy
                rewriter.set_attribute(node, "allowzero", None)
    return 1


def _fix_expand(node: Node, rewriter: Rewriter) -> int:
    source, target = input_at(node, 0), input_at(node, 1)
    if source is None or target is None or is_constant(target):
        return 0
    data, given = symbolic_data(target), dims(source)
    if data is None or given is None:
        return 0
    own = (*[None] * (len(data) - len(given)), *given[max(len(given) - len(data), 0) :])
    fixed = [1 if e is not None and e == d else e for e, d in zip(data, own, strict=True)]
    numbers = [element for element in fixed if isinstance(element, int)]
    if len(numbers) < len(fixed) or not rewriter.allowed("fold-shapes", node):
        return 0
    with rewriter.standing_for([node]):
        made = rewriter.constant(np.asarray(numbers, np.int64), target.name or "shape", near=node)
        rewriter.set_input(node, 1, made)
    return 1


def _is_shape_of(value: Value, target: list[int]) -> bool:
    """Whether Reshape to the target (0: the value's own dimension) gives the value as it is."""
    known = dims(value)
    if known is None or len(known) != len(target):
        return False
    return all(wanted in (0, given) for wanted, given in zip(target, known, strict=True))


def _reshape_target(data: tuple[object, ...], source: Value) -> list[int] | None:
    """A constant target equal in effect to the symbolic one, or None."""
    source_dims = dims(source)
    if any(e == 0 for e in data):
        return None
    fixed: list[int] = []
    open_places = 0
    for position, element in enumerate(data):
        if isinstance(element, int):
            fixed.append(element)
        elif (
            element is not None
            and source_dims is not None
            and position < len(source_dims)
            and str(element) == source_dims[position]
        ):
            fixed.append(0)
        else:
            fixed.append(-1)
            open_places += 1
    if open_places == 0:
        return fixed
    # -1 beside a copied dimension fails on an empty batch, where the original does not.
    copied = 0 in fixed or -1 in data
    return fixed if open_places == 1 and not copied else None
