# SPDX-License-Identifier: Apache-2.0
"""Which operators onnxruntime runs on int8, and what a single node must look like for that.

A refusal is a line of text: the reason the node stays float. Nothing here looks at ranges or neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph_ir import DataType, Node, Value, constant
from ...graph_ir.numerics import LARGEST_SCALE, SMALLEST_SCALE
from ...graph_ir.ops import (
    constant_tensor,
    float_attr,
    input_at,
    int_attr,
    ints_attr,
    is_constant,
    is_op,
    only_user,
    string_attr,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
# Linear in spirit, but the runtime has no int8 kernel for them: reported, never quantised.
FLOAT_LINEAR = frozenset({"ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "ConvInteger", "DeformConv"})
# Own int8 kernels with an output scale of their own.
FOLLOWERS = frozenset(
    {"Add", "Mul", "Concat", "Where", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"}
)
# No int8 kernel of their own: they compute in float between a DQ and a Q, cheaper than the end of an int8
# region; the hard gates as sums and products of codes (see `gates`).
ISLANDS = frozenset(
    {"HardSwish", "HardSigmoid", "Gelu", "Swish", "Mish", "Tanh", "Elu", "Selu", "Celu", "Softplus", "PRelu"}
)
GATES = frozenset({"Sigmoid", "HardSigmoid"})
# The same codes come out that went in; the runtime drops the Q/DQ around them.
PASSING = frozenset(
    {
        "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split",
        "Resize",
        "DepthToSpace", "Expand", "Tile", "ReduceMax", "ReduceMin", "GatherElements",
    }
)  # fmt: skip
# No rule in the runtime, but the operator itself is defined on uint8: it is put between Q and DQ as it is.
NATIVE = frozenset({"Pad", "SpaceToDepth"})
BOUNDS = frozenset({"Relu", "Clip"})
QUANTIZABLE = LINEAR | FOLLOWERS | ISLANDS

_WEIGHT = 1
_LEAST = 256 * SMALLEST_SCALE


def data_inputs(node: Node) -> list[Value]:
    """The inputs of a follower or passing node that hold activations (or constants in their place).

    So do both of a convolution of `computes_weights`, which is emitted as a follower.
    """
    if node.op_type == "Where":
        picked = node.inputs[1:3]
    elif node.op_type == "Conv":
        picked = node.inputs[:2]
    elif node.op_type in {"Add", "Mul", "Concat"}:
        picked = node.inputs[:]
    else:
        picked = node.inputs[:1]
    return [v for v in picked if v is not None]


def refuse_linear(node: Node) -> str | None:
    """Why a Conv, Gemm or MatMul cannot become int8 for what it is itself; None when it can."""
    if len(node.inputs) < 2 or node.inputs[0] is None:
        return "it lacks an input"
    x, w = node.inputs[0], node.inputs[_WEIGHT]
    if constant_tensor(x) is not None:
        return "its data input is a constant"
    tensor = constant_tensor(w)
    if tensor is None:
        return "its weights are not constant" if node.op_type != "MatMul" else "both operands are activations"
    if tensor.dtype != DataType.FLOAT:
        return f"its weights are {tensor.dtype.name.lower()}, not float"
    array = tensor.numpy()
    alpha = float_attr(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
    if (reason := refuse_weights(array, alpha)) is not None:
        return reason
    if node.op_type == "MatMul":
        return None if array.ndim == 2 else "its weights are not a matrix"
    if node.op_type == "Gemm":
        if int_attr(node, "transA", 0):
            return "it transposes its data input"
        if alpha <= 0:
            return "its alpha is not positive"
        columns = array.shape[0] if int_attr(node, "transB", 0) else array.shape[1]
        return _refuse_bias(node, columns)
    if array.ndim < 3:
        return "its weights have no spatial axis"
    return _refuse_bias(node, array.shape[0])


def computes_weights(node: Node) -> bool:
    """Whether it is a Conv of two values that are computed, with a constant bias or none.

    The int8 kernel takes weights that are no constants as codes of one grid, as it takes its data: the
    correlation of a tracker, the layers of a hypernetwork.
    """
    if not is_op(node, "Conv") or len(node.inputs) < 2:
        return False
    bias = input_at(node, 2)
    if bias is not None and constant(bias) is None:
        return False
    return all(v is not None and v.dtype == DataType.FLOAT and not is_constant(v) for v in node.inputs[:2])


def activations_of(node: Node) -> list[Value]:
    """What a linear node with an int8 kernel reads, but constant weights and biases."""
    return [v for v in node.inputs[: 2 if computes_weights(node) else 1] if v is not None]


def fits_sum(bias: NDArray[Any] | None, step: float) -> bool:
    """Whether a bias, in steps of the kernel's sum, leaves half of 32 bits to what it is added to."""
    if bias is None:
        return True
    with np.errstate(over="ignore"):
        return bool(np.abs(bias, dtype=np.float64).max(initial=0.0) < step * 2**30)


def refuse_weights(array: NDArray[Any], factor: float = 1.0) -> str | None:
    """Why weights, times the factor, have no scale in 8 bits or fewer; None when they have."""
    low, high = (float(array.min()), float(array.max())) if array.size else (np.nan, np.nan)
    if not np.isfinite([low, high, factor]).all():
        return "its weights are empty or not finite"
    largest = max(-low, high) * abs(factor)
    return None if largest == 0 or _LEAST < largest < LARGEST_SCALE else "no scale fits its weights"


def _refuse_bias(node: Node, channels: int) -> str | None:
    value = input_at(node, 2)
    if value is None:
        return None
    bias = constant(value)
    if bias is None:
        return "its bias is not constant"
    beta = float_attr(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    if not np.isfinite(bias).all() or not abs(beta) * np.abs(bias).max(initial=0.0) < LARGEST_SCALE:
        return "its bias is not finite, or too large"
    if bias.size != 1 and (bias.size != channels or bias.shape[-1] != channels):
        return "its bias is not one value per channel"
    return None


def refuse_follower(node: Node) -> str | None:
    """Why a follower cannot take its int8 kernel for what it is itself."""
    if any(v is None for v in node.inputs):
        return "an input is left out"
    for value in data_inputs(node):
        array = constant(value)
        if array is not None and (
            array.dtype != np.float32 or not array.size or not np.abs(array).max() < LARGEST_SCALE
        ):
            return "a constant operand is not finite float, or too large"
    if node.op_type == "AveragePool" and any(d != 1 for d in ints_attr(node, "dilations") or ()):
        return "the runtime has no dilated int8 average"
    return None


def refuse_passing(node: Node) -> str | None:
    """Why a passing node cannot run on the codes."""
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return "its indices are read"
    if node.op_type == "Resize" and string_attr(node, "mode", "nearest") != "nearest":
        return "it interpolates"
    if (
        node.op_type == "Resize"
        and string_attr(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    ):
        return "it crops"
    if node.op_type == "Pad":
        if input_at(node, 3) is not None:  # the runtime takes such pads for those of all axes
            return "its axes are given"
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            fill = constant(node.inputs[2])
            if fill is None or float(fill.reshape(())) != 0.0:
                return "it does not pad with zero"
        if len(node.inputs) < 2:
            return "its pads are attributes of an old opset"
    return None


def gate_of(node: Node) -> Node | None:
    """The Sigmoid or HardSigmoid g of a Mul that computes `x * g(x)` and alone reads it."""
    if not is_op(node, "Mul"):
        return None
    for value, other in (tuple(node.inputs), tuple(node.inputs[::-1])):
        producer = None if value is None else value.producer()
        if producer is not None and gated_mul(producer) is node and producer.inputs[0] is other:
            return producer
    return None


def gated_mul(node: Node) -> Node | None:
    """The Mul of which the node is the gate (see `gate_of`)."""
    if not is_op(node, *GATES):
        return None
    user = only_user(node.outputs[0])
    if user is None or not is_op(user, "Mul") or node.inputs[0] not in user.inputs:
        return None
    return user


def average_kernel(node: Node) -> tuple[int, list[int]] | None:
    """Channels and kernel of an AveragePool that is a depthwise convolution with equal weights.

    That holds when padding counts as zeros (or there is none), the output size is rounded down and the
    channels are known.
    """
    x = node.inputs[0] if is_op(node, "AveragePool") else None
    kernel = ints_attr(node, "kernel_shape")
    if x is None or kernel is None or x.shape is None or len(x.shape) != len(kernel) + 2:
        return None
    channels = x.shape[1]
    padded = any(ints_attr(node, "pads") or ()) or string_attr(node, "auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    if padded and not int_attr(node, "count_include_pad", 0):
        return None
    if not isinstance(channels, int) or int_attr(node, "ceil_mode", 0):
        return None
    return channels, kernel


def bounds_of(node: Node) -> tuple[float, float] | None:
    """The interval a Relu or Clip clamps to; None when it is not constant."""
    if is_op(node, "Relu"):
        return 0.0, float("inf")
    limits = [float("-inf"), float("inf")]
    for i in (0, 1):
        value = input_at(node, i + 1)
        if value is None:
            continue
        array = constant(value)
        if array is None or array.size != 1:
            return None
        limits[i] = float(array.reshape(()))
    if "min" in node.attributes or "max" in node.attributes:
        return float_attr(node, "min", limits[0]), float_attr(node, "max", limits[1])
    return limits[0], limits[1]


def channel_axis(node: Node) -> int:
    """The axis of a linear node's weights that runs over its outputs."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and int_attr(node, "transB", 0) else 1
