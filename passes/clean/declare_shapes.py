# SPDX-License-Identifier: Apache-2.0
"""Sizes of summands, written in the file where the runtime could not find out that they are equal."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import INFERRED, Model, Node, Value
from ...graph_ir.ops import dims, is_op
from ..base import Context, Exactness, Pass

_SUMS = ("Add", "Mul", "Sum")


class DeclareShapes(Pass):
    """Declare the shapes of what is added or multiplied, where they are equal but not all numbers.

    The graph stays as it is. A size is declared by a text (``floor((H + 1)/2)``), and equal texts are equal
    sizes in every run, so a runtime that compares names knows what `infer-shapes` proved. Not done: shapes
    that differ or are open, what DequantizeLinear makes, values in bodies and functions.

    onnxruntime adds into the output of a convolution, and keeps its blocked layout through a sum, only where
    it knows both shapes to be equal; behind strides its own inference does not.

    It needs shapes (`infer-shapes`), and comes last: a type declared here is the file's own from then on.
    """

    name: ClassVar[str] = "declare-shapes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Declare them; True if anything was."""
        declared = 0
        for node in model.graph:
            if is_op(node, *_SUMS) and _equal_and_named(node):
                for value in node.inputs:
                    if value is not None and value.meta.pop(INFERRED, None) is not None:
                        declared += 1
        ctx.counters[self.name] += declared
        return declared > 0


def _equal_and_named(node: Node) -> bool:
    shapes = [_shape(value) for value in node.inputs]
    first = shapes[0]
    return (
        first is not None
        and any(isinstance(size, str) for size in first)
        and all(shape == first for shape in shapes[1:])
    )


def _shape(value: Value | None) -> tuple[int | str | None, ...] | None:
    """Its sizes as numbers and names; None where one is open, or where int8 codes become numbers."""
    if value is None or is_op(value.producer(), "DequantizeLinear"):
        return None
    sizes = dims(value)
    return None if sizes is None or None in sizes else sizes
