# SPDX-License-Identifier: Apache-2.0
"""Random chains of linear operators and what surrounds them, for property tests (hypothesis).

`chains()` draws a model; its choices shrink to a short chain with plain attributes. Sizes are tiny,
magnitudes near one, and every model is valid: the rewrite is tested, not the operator's own limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]

DTYPES = (np.float32, np.float16, np.float64)
OPSETS = (9, 13, 17, 20)


@dataclass
class Chain:
    """A growing model: the last value, its shape, and all that was made so far."""

    draw: Draw
    dtype: np.dtype[Any]
    opset: int
    rng: np.random.Generator
    shape: Shape
    last: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    weights: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    shapes: dict[str, Shape] = field(default_factory=dict[str, Shape])

    def pick(self, *options: Any) -> Any:
        """One of several; the first is the simplest."""
        return self.draw(st.sampled_from(options))

    def weight(self, shape: Sequence[int], fan: int = 1, *, away_from_zero: bool = False) -> str:
        """A weight's name: a new one of size 1 / sqrt(fan), or now and then an old one of the same shape."""
        extent = tuple(shape)
        old = [name for name, array in self.weights.items() if array.shape == extent and name.startswith("w")]
        if old and not away_from_zero and self.pick(False, False, True):
            return self.pick(*old)
        array = self.rng.standard_normal(extent) / math.sqrt(fan)
        if away_from_zero:
            array = self.rng.choice([-1.0, 1.0], extent) * self.rng.uniform(0.5, 2.0, extent)
        return self.constant(array.astype(self.dtype), "c" if away_from_zero else "w")

    def constant(self, array: NDArray[Any] | list[int], stem: str = "k") -> str:
        """An initializer's name; lists are int64."""
        name = f"{stem}{len(self.weights)}"
        self.weights[name] = np.asarray(array, np.int64) if isinstance(array, list) else array
        return name

    def add(self, op_type: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> None:
        """Append a node that makes a value of this shape."""
        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"n{name}", **attributes))
        self.last, self.shape = name, tuple(shape)
        self.shapes[name] = self.shape


def conv(chain: Chain) -> None:
    """A Conv with groups, strides, dilations, pads of either kind and perhaps a bias."""
    channels, spatial = chain.shape[1], chain.shape[2:]
    group = chain.pick(*(g for g in (1, 2, channels) if channels % g == 0))
    outputs = group * chain.pick(1, 2)
    kernel = [min(chain.pick(1, 2, 3), s) for s in spatial]
    attributes: dict[str, Any] = {}
    strides, pads = [1] * len(spatial), [0] * (2 * len(spatial))
    if chain.pick(False, True):
        attributes["strides"] = strides = [chain.pick(1, 2) for _ in spatial]
    padding = chain.pick("", "pads", "VALID", "SAME_UPPER", "SAME_LOWER")
    if padding == "pads":
        attributes["pads"] = pads = [chain.pick(0, 1, 2) for _ in pads]
    elif padding:
        attributes["auto_pad"] = padding
    n = len(spatial)
    size = [(s + pads[i] + pads[n + i] - kernel[i]) // strides[i] + 1 for i, s in enumerate(spatial)]
    if padding.startswith("SAME"):
        size = [-(-s // strides[i]) for i, s in enumerate(spatial)]
    per_group = channels // group
    inputs = [chain.last, chain.weight((outputs, per_group, *kernel), per_group * math.prod(kernel))]
    if chain.pick(False, True):
        inputs.append(chain.weight((outputs,)))
    if group > 1:
        attributes["group"] = group
    chain.add("Conv", inputs, (chain.shape[0], outputs, *size), **attributes)


def conv_transpose(chain: Chain) -> None:
    """A ConvTranspose with groups and strides, and perhaps a bias."""
    channels, spatial = chain.shape[1], chain.shape[2:]
    group = chain.pick(*(g for g in (1, 2) if channels % g == 0))
    per_group = chain.pick(1, 2)
    stride = chain.pick(1, 2)
    kernel = [chain.pick(1, 2) for _ in spatial]
    inputs = [chain.last, chain.weight((channels, per_group, *kernel), channels // group)]
    if chain.pick(False, True):
        inputs.append(chain.weight((per_group * group,)))
    size = [(s - 1) * stride + k for s, k in zip(spatial, kernel, strict=True)]
    shape = (chain.shape[0], per_group * group, *size)
    chain.add("ConvTranspose", inputs, shape, group=group, strides=[stride] * len(spatial))


def batch_norm(chain: Chain) -> None:
    """A BatchNormalization; its shift is zero now and then."""
    count = chain.shape[1]
    shift = mean = chain.constant(np.zeros(count, chain.dtype), "z")
    if chain.pick(True, False):
        shift, mean = chain.weight((count,)), chain.weight((count,))
    scale = chain.weight((count,), away_from_zero=True)
    variance = chain.constant(chain.rng.uniform(0.5, 2.0, count).astype(chain.dtype), "v")
    epsilon = {"epsilon": 0.01} if chain.pick(False, True) else {}
    chain.add("BatchNormalization", [chain.last, scale, shift, mean, variance], chain.shape, **epsilon)


def affine(chain: Chain) -> None:
    """Mul, Add, Sub or Div by a constant of any shape that broadcasts, on either side where that is legal."""
    ndim = len(chain.shape)
    axis = chain.pick(1, ndim - 1, ndim - 2)
    extents: dict[str, list[int]] = {
        "channel": [chain.shape[i] if i == axis else 1 for i in range(ndim)],
        "tail": [chain.shape[axis], *[1] * (ndim - 1 - axis)],
        "scalar": [],
        "one": [1] * chain.pick(1, ndim),
        "full": list(chain.shape),
    }
    extent = extents[chain.pick("tail", "channel", "scalar", "one", "full")]
    kind = chain.pick("Mul", "Add", "Sub", "Div")
    operands = [chain.last, chain.weight(extent, away_from_zero=True)]
    if kind != "Div" and chain.pick(False, True):
        operands.reverse()
    chain.add(kind, operands, chain.shape)


def pad(chain: Chain) -> None:
    """A Pad with zeros of the spatial axes, in the form the opset has."""
    n = len(chain.shape) - 2
    ends = [chain.pick(1, 0, 2) for _ in range(2 * n)]
    full = [0, 0, *ends[:n], 0, 0, *ends[n:]]
    shape = (*chain.shape[:2], *(s + ends[i] + ends[n + i] for i, s in enumerate(chain.shape[2:])))
    if chain.opset < 11:
        chain.add("Pad", [chain.last], shape, pads=full)
    elif chain.opset < 18:
        chain.add("Pad", [chain.last, chain.constant(full)], shape)
    else:
        axes = chain.constant(list(range(2, n + 2)))
        chain.add("Pad", [chain.last, chain.constant(ends), "", axes], shape)


def pool(chain: Chain) -> None:
    """A MaxPool or AveragePool with or without padding of its own."""
    kind = chain.pick("AveragePool", "MaxPool")
    kernel = [min(chain.pick(2, 3), s) for s in chain.shape[2:]]
    n, own = len(kernel), chain.pick(0, 1)
    pads = [min(own, kernel[i % n] - 1) for i in range(2 * n)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "pads": pads}
    if kind == "AveragePool" and chain.pick(False, True):
        attributes["count_include_pad"] = 1
    size = [s + pads[i] + pads[n + i] - kernel[i] + 1 for i, s in enumerate(chain.shape[2:])]
    chain.add(kind, [chain.last], (*chain.shape[:2], *size), **attributes)


def relu(chain: Chain) -> None:
    """A Relu."""
    chain.add("Relu", [chain.last], chain.shape)


def prelu(chain: Chain) -> None:
    """A PRelu whose slopes are all the same."""
    slopes = np.full((chain.shape[1], *[1] * (len(chain.shape) - 2)), 0.25, chain.dtype)
    chain.add("PRelu", [chain.last, chain.constant(slopes, "p")], chain.shape)


def spatial_mean(chain: Chain) -> None:
    """A ReduceMean over the spatial axes that keeps them."""
    axes = list(range(2, len(chain.shape)))
    shape = (*chain.shape[:2], *[1] * len(axes))
    if chain.opset < 18:
        chain.add("ReduceMean", [chain.last], shape, axes=axes)
    else:
        chain.add("ReduceMean", [chain.last, chain.constant(axes)], shape)


def gemm(chain: Chain) -> None:
    """A Gemm (of matrices) with transposes, alpha and beta, and a bias of any shape that fits."""
    if len(chain.shape) != 2:
        matmul(chain)
        return
    attributes: dict[str, Any] = {}
    inner, rows = chain.shape[1], chain.shape[0]
    if chain.pick(False, True):
        attributes["transA"], inner, rows = 1, rows, inner
    outputs = chain.pick(2, 3, inner)
    shape = (inner, outputs)
    if chain.pick(False, True):
        attributes["transB"], shape = 1, (outputs, inner)
    if chain.pick(False, True):
        attributes |= {"alpha": 0.5, "beta": 2.0}
    inputs = [chain.last, chain.weight(shape, inner)]
    if chain.opset < 11 or chain.pick(False, True):
        inputs.append(chain.weight(chain.pick((outputs,), (1, outputs), (1,), (rows, 1), (rows, outputs))))
    chain.add("Gemm", inputs, (rows, outputs), **attributes)


def matmul(chain: Chain) -> None:
    """A MatMul by a constant on either side, and perhaps the Add of a bias."""
    *batch, rows, inner = chain.shape
    outputs = chain.pick(2, 3, inner)
    lead = tuple(batch) if chain.pick(False, True) else ()
    if chain.pick(True, False):
        chain.add(
            "MatMul", [chain.last, chain.weight((*lead, inner, outputs), inner)], (*batch, rows, outputs)
        )
    else:
        chain.add(
            "MatMul", [chain.weight((*lead, outputs, rows), rows), chain.last], (*batch, outputs, inner)
        )
    if chain.pick(False, True):
        *_, rows, columns = chain.shape
        bias = chain.weight(chain.pick((columns,), (rows, 1), (1, columns), ()))
        chain.add("Add", chain.pick([chain.last, bias], [bias, chain.last]), chain.shape)


IMAGE_STEPS = (
    conv,
    batch_norm,
    affine,
    pad,
    conv,
    relu,
    conv_transpose,
    affine,
    pool,
    conv,
    prelu,
    spatial_mean,
)
MATRIX_STEPS = (gemm, matmul, batch_norm, affine, relu)


@st.composite
def chains(draw: Any) -> onnx.ModelProto:
    """A valid model of two to six random steps, over an image or a matrix, in a random dtype and opset.

    An inner result may be a second output, a weight may be one the caller can override, inner shapes may be
    declared or not, and the batch may be a symbol.
    """
    is_image = draw(st.booleans())
    extent: list[int] = [2, draw(st.sampled_from([4, 3, 1]))]
    extent += (
        [draw(st.sampled_from([4, 5])) for _ in range(draw(st.sampled_from([2, 1])))] if is_image else []
    )
    if not is_image and draw(st.booleans()):
        extent.append(draw(st.sampled_from([3, 4])))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    seed = draw(st.integers(0, 2**16))
    chain = Chain(draw, dtype, draw(st.sampled_from(OPSETS)), np.random.default_rng(seed), tuple(extent))
    for _ in range(draw(st.integers(2, 6))):
        draw(st.sampled_from(IMAGE_STEPS if is_image else MATRIX_STEPS))(chain)
    return _model(chain, tuple(extent))


def _model(chain: Chain, first: Shape) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(chain.dtype)

    def port(name: str, shape: Shape) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(shape))

    inputs, outputs = [port("x", first)], [port(chain.last, chain.shape)]
    inner = [name for name in chain.shapes if name != chain.last]
    if inner and chain.pick(False, False, True):
        name = chain.pick(*inner)
        outputs.append(port(name, chain.shapes[name]))
    floats = [name for name, array in chain.weights.items() if array.dtype == chain.dtype]
    if floats and chain.pick(False, False, True):
        name = chain.pick(*floats)
        inputs.append(port(name, chain.weights[name].shape))
    known = [port(name, chain.shapes[name]) for name in inner] if chain.pick(True, False) else []
    graph = helper.make_graph(
        chain.nodes,
        "chain",
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in chain.weights.items()],
        value_info=known,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", chain.opset)], ir_version=8)
