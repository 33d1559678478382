# SPDX-License-Identifier: Apache-2.0
"""Conv, Gemm and MatMul with constant weights as one thing: rows of features times a matrix, plus a bias.

Every place of the output is a row; a convolution's features are the patch its kernel sees there, per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import DataType, Node, Rewriter, Value, constant
from ...graph_ir.ops import constant_tensor, float_attr, input_at, int_attr, is_op
from ...passes.linear.bias import bias_add
from ...passes.linear.patches import patches
from ...passes.linear.rows import RowView
from .criteria.constants import computed, moved_only, stored

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Wide = NDArray[np.float64]

_TYPES = (DataType.FLOAT, DataType.FLOAT16, DataType.DOUBLE, DataType.BFLOAT16)


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer whose weights can be changed.

    Attributes:
        node: Conv, Gemm or MatMul.
        x: the activation it reads.
        y: its result; behind the Add of a MatMul's bias.
        matrix: ``[groups, outputs / group, features]``; a view of the weight where it can be.
        bias: float64 ``[outputs]``; None where there can be none.
        weight: the value the node reads as its weight.
        read: that weight as rows.
        held: the constant that holds the bias; None when one would be made.
    """

    node: Node
    x: Value
    y: Value
    matrix: Array
    bias: Wide | None
    weight: Value
    read: RowView
    held: Value | None

    @property
    def outputs(self) -> int:
        return self.read.outputs

    @property
    def features(self) -> int:
        """How many numbers one output sums over."""
        return self.read.columns

    def places(self, y: Array) -> tuple[int, ...]:
        """The shape of the output without its channels."""
        return (y.shape[0], *y.shape[2:]) if self.node.op_type == "Conv" else y.shape[:-1]

    def targets(self, y: Array, rows: NDArray[np.int64]) -> Wide:
        """The outputs at some places (flat indices into `places`), ``[rows, outputs]``."""
        if self.node.op_type == "Conv":
            index = np.unravel_index(rows, self.places(y))
            return y[(index[0], slice(None), *index[1:])].astype(np.float64)
        return y.reshape(-1, y.shape[-1])[rows].astype(np.float64)

    def inputs(self, x: Array, rows: NDArray[np.int64]) -> Wide:
        """What those places sum over, ``[groups, rows, features]``."""
        return patches(self.read, self.x.name or "").at(x, rows)

    def write(self, matrix: Wide, bias: Wide | None, rewriter: Rewriter) -> None:
        """Put new numbers into the model, in the type of the old ones."""
        alpha, beta = float_attr(self.node, "alpha", 1.0), float_attr(self.node, "beta", 1.0)
        array = self.read.back(matrix.reshape(self.outputs, -1))
        if self.node.op_type == "Gemm":
            array = array / alpha
        root, data = stored(self.weight, array)
        old = constant(root)
        assert old is not None
        rewriter.set_data(root, np.ascontiguousarray(data, old.dtype))
        if bias is None:
            return
        if self.held is None:
            hint = f"{root.name}_bias"
            rewriter.set_input(self.node, 2, rewriter.constant(bias.astype(old.dtype), hint, self.node))
            if "beta" in self.node.attributes:
                rewriter.set_attribute(self.node, "beta", None)
            return
        before = constant(self.held)
        assert before is not None
        scaled = bias / beta if self.node.op_type == "Gemm" else bias
        rewriter.set_data(self.held, np.reshape(scaled, before.shape).astype(before.dtype))


def view(node: Node) -> Linear | str:
    """The layer a node is, or why its weights cannot be refitted."""
    if not is_op(node, "Conv", "Gemm", "MatMul"):
        return "is no Conv, Gemm or MatMul"
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or not moved_only(weight):
        return "its weight is computed, quantized or may be overridden"
    root = _root(weight)
    tensor = constant_tensor(root)
    array = computed(weight)
    if root is None or tensor is None or tensor.dtype not in _TYPES or array is None or not array.size:
        return "its weight is no float tensor"
    if _is_shared(weight):
        return "its weight is shared"
    read = RowView(node, array.shape)
    if not read.is_conv and array.ndim != 2:
        return "its weight is no matrix"
    matrix = read.rows(array).reshape(read.groups, -1, read.columns)
    if node.op_type == "Gemm":
        alpha = float_attr(node, "alpha", 1.0)
        if int_attr(node, "transA", 0) or alpha == 0.0:
            return "its operand is transposed, or its factor is zero"
        matrix = alpha * matrix.astype(np.float64)
    return _with_bias(node, x, matrix, weight, read)


def _with_bias(node: Node, x: Value, matrix: Array, weight: Value, read: RowView) -> Linear:
    outputs = read.outputs
    y, held, bias = node.outputs[0], input_at(node, 2), None
    if node.op_type == "MatMul" and (added := bias_add(node)) is not None:
        y, held = added[0].outputs[0], added[1]
    array = constant(held)
    factor = float_attr(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    if held is None and node.op_type != "MatMul":
        bias = np.zeros(outputs)
    elif held is not None and array is not None and factor and _is_bias(array, outputs):
        bias = array.astype(np.float64).reshape(-1) * factor
    if held is not None and (bias is None or _is_shared(held)):
        bias, held, y = None, None, node.outputs[0]
    return Linear(node, x, y, matrix, bias, weight, read, held)


def _is_bias(array: Array, outputs: int) -> bool:
    """Whether the array holds one number per output along its last axis."""
    return array.shape[-1:] == (outputs,) and array.size == outputs


def _root(value: Value | None) -> Value | None:
    while value is not None and constant_tensor(value) is None:
        node = value.producer()
        value = None if node is None else node.inputs[0]
    return value


def _is_shared(value: Value) -> bool:
    """Whether anyone else reads the constant, or what it is made from."""
    while True:
        if len(value.uses()) != 1 or value.is_graph_output():
            return True
        node = value.producer()
        if constant_tensor(value) is not None or node is None or node.inputs[0] is None:
            return False
        value = node.inputs[0]
