# SPDX-License-Identifier: Apache-2.0
"""What is found out about a model file: feeds it runs on, sizes of its dims, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...analysis.cost import cost
from ...analysis.observed import observed_sizes
from ...analysis.shapes import infer_shapes
from ...backends.base import BackendError, Feed
from ...backends.onnxruntime.session import OrtSession
from ...calibration.axes import free_sizes
from ...calibration.data import open_feeds
from ...graph_ir import DataError, DataType, Model, Signature, load
from ...graph_ir.ops import input_at, is_op, static_shape, walk_graphs, walk_nodes
from ...passes.quantize.dynamic import KINDS as DYNAMIC
from ...passes.quantize.kinds import LINEAR, refuse_linear
from .files import model_files
from .placement import share_of
from .result import Composition, Facts

MOSTLY = 0.9  # of the work of linear layers
NOTED = 0.02  # part by which MACs may grow without a word
_OF_CODES = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "MatMulInteger",
    "MatMulNBits", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
})  # fmt: skip
_ZEROS = {"MatMulInteger": 3, "DynamicQuantizeLSTM": 11}  # the operand with an axis for each of the scales


def drawn(path: Path, signature: Signature, seed: int) -> list[Feed]:
    """Feeds drawn from the signature, for timing and checking; none when the model does not run on them."""
    with OrtSession(path) as session:
        try:
            feeds: list[Feed] = list(open_feeds(f"random:{seed}:2", signature))
            for feed in feeds:
                session.run(feed)
        except (BackendError, DataError):
            return []
    return feeds


def only_dynamic(path: Path | None) -> bool:
    """Whether a model has layers that Q/DQ leave float, and dynamic int8 does not."""
    return path is not None and any(is_op(node, "LSTM") for node in walk_nodes(load(path)))


def mostly_dynamic(path: Path | None) -> bool:
    """Whether nearly all linear layers may be dynamic int8, as in transformers."""
    return path is not None and share_of(load(path), DYNAMIC) >= MOSTLY


def bindings_in(signature: Signature, feeds: Sequence[Feed]) -> dict[str, int]:
    """Sizes of the free dimensions in the first feed, or as without data; see `free_sizes`."""
    found: dict[str, int] = {}
    for name, _, dims in signature.inputs:
        if not feeds or name not in feeds[0]:
            continue
        for axis, (dim, size) in enumerate(zip(dims or (), feeds[0][name].shape, strict=False)):
            if not isinstance(dim, int):
                found.setdefault(dim or f"?{name}.{axis}", int(size))
    return {**free_sizes(signature), **found}


def sized(bindings: Mapping[str, int]) -> list[str]:
    """A note on the sizes of free dimensions that MACs are of; none where all are 1."""
    sizes = ", ".join(f"{name.removeprefix('?')}={size}" for name, size in bindings.items())
    return [f"MACs are of one run with {sizes}"] if any(size != 1 for size in bindings.values()) else []


def may_be_static(model: Model) -> bool:
    """Whether there is a linear node that Q/DQ can be placed around; without one nothing is."""
    return any(is_op(node, *LINEAR) and refuse_linear(node) is None for node in model.graph)


def why_not_int8(model: Model) -> str:
    """Why there is nothing in a model that could be quantized."""
    if is_quantized(model):
        return "the model is quantized already"
    weights = [value.dtype for graph in walk_graphs(model) for value in graph.initializers.values()]
    if any(dtype in (DataType.FLOAT16, DataType.BFLOAT16) for dtype in weights):
        return "the model is of 16-bit floats; start from the float32 model, or put to-float before"
    linear = [node for node in model.graph if is_op(node, *LINEAR)]
    refused = Counter(filter(None, map(refuse_linear, linear)))
    if linear and refused.total() == len(linear):
        (reason, count), *others = refused.most_common()
        return f"of each of {len(linear)} linear nodes: {reason}" + (f" (of {count})" if others else "")
    if not linear and any(is_op(node, *LINEAR) for node in walk_nodes(model)):
        return "all linear nodes are in bodies of If, Loop or Scan, or in functions, where no Q/DQ is placed"
    if not linear:
        return "the model has no Conv, Gemm or MatMul"
    return "the model has no node that can be quantized"


def is_quantized(model: Model) -> bool:
    """Whether nodes compute on codes, or weights are stored as such."""
    return any(node.op_type in _OF_CODES for node in walk_nodes(model))


def composition(model: Model) -> Composition:
    """What is equal for forms that take equal time: how many of each operator there are, and of grids.

    Codes that stay on one grid are copied where others are computed anew, and products with weights of one
    scale are scaled faster.
    """
    nodes = list(walk_nodes(model))
    dynamic = [input_at(n, _ZEROS[n.op_type]) for n in nodes if n.op_type in _ZEROS]
    axes = sum(len(static_shape(zeros) or ()) for zeros in dynamic)
    grids = {n.inputs[1].name for n in nodes if n.op_type == "QuantizeLinear" and n.inputs[1] is not None}
    counts = sorted(Counter(n.op_type for n in nodes).items())
    return (*counts, ("grids", len(grids)), *[("axes of scales", axes)] * bool(dynamic))


def padding(before: Facts, after: Facts) -> list[str]:
    """A note where a form computes more than the original does; none where that is not known."""
    if before.uncounted or after.uncounted or after.macs <= before.macs * (1 + NOTED):
        return []
    more = f"by {after.macs / before.macs - 1:.0%}" if before.macs else "from nothing"
    why = "channels padded with zeros, or moves of data written as layers, because it is faster so"
    return [f"MACs grow {more}: {why}; the times include it"]


def facts_of(path: Path, bindings: Mapping[str, int], feed: Feed | None = None) -> Facts:
    """Size and cost of a model file, for given sizes, and those of a feed where only a run tells them."""
    model = load(path)
    infer_shapes(model)
    table = cost(model, bindings=bindings if feed is None else observed_sizes(model, bindings, feed))
    nodes = sum(1 for _ in walk_nodes(model))
    size = sum(file.stat().st_size for file in model_files(model, path))
    return Facts(table.parameters, table.macs, size, nodes, table.uncounted)
