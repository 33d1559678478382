# SPDX-License-Identifier: Apache-2.0
"""Short deterministic text of a model, for diffs and tests; and reading ONNX text with seeded weights.

ONNX's own printer repeats every initializer as a value info and prints the data; here a weight is one line
with its type, shape and a hash, small integers and scalars with their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnx_ir as ir

from .errors import ModelError, one_line
from .io import from_proto
from .ops import subgraphs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_PRINT_ELEMENTS = 8
_SEEDED = re.compile(r"(\w+)\s*(\[[\d,\s]*\])\s*([\w.$/:-]+)\s*=\s*\{\s*seed\s*\}")
_TEXT_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "int8": np.int8,
    "uint8": np.uint8,
}


def to_text(model: ir.Model) -> str:
    """The model as text: signature, weights, one line a node, bodies indented, functions after the graph."""
    opsets = ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in sorted(model.opset_imports.items()))
    lines = [f"ir {model.ir_version} opset {opsets}", *_graph_lines(model.graph, "")]
    for function in model.functions.values():
        lines.append(f"function {function.domain}.{function.name}")
        lines += _graph_lines(function.graph, "")
    return "\n".join(lines) + "\n"


def _graph_lines(graph: ir.Graph, indent: str) -> Iterator[str]:
    inputs = ", ".join(_typed(v) for v in graph.inputs)
    outputs = ", ".join(_typed(v) for v in graph.outputs)
    yield f"{indent}{graph.name or 'graph'} ({inputs}) -> ({outputs})"
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield f"{indent}  {_typed(value)} = {_tensor(value.const_value)}"
    for node in graph:
        yield f"{indent}  {_node(node)}"
        for body in subgraphs(node):
            yield from _graph_lines(body, indent + "    ")


def _typed(value: ir.Value) -> str:
    dtype = "?" if value.dtype is None else value.dtype.name.lower()
    shape = "" if value.shape is None else "[" + ",".join(str(d) for d in value.shape) + "]"
    return f"{dtype}{shape} {value.name}"


def _tensor(tensor: ir.TensorProtocol) -> str:
    if tensor.size <= _PRINT_ELEMENTS:
        return "{" + ", ".join(str(x) for x in tensor.numpy().reshape(-1).tolist()) + "}"
    is_text = tensor.dtype == ir.DataType.STRING
    data = repr(tensor.numpy().tolist()).encode() if is_text else tensor.tobytes()
    import hashlib

    return "#" + hashlib.blake2b(data, digest_size=4).hexdigest()


def _attribute(attr: ir.Attr) -> str:
    if attr.is_ref():
        return f"{attr.name}=@{attr.ref_attr_name}"
    if attr.type == ir.AttributeType.TENSOR:
        return f"{attr.name}={_tensor(attr.as_tensor())}"
    if attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return f"{attr.name}=graph"
    shown = list(cast("Sequence[Any]", attr.value)) if isinstance(attr.value, (list, tuple)) else attr.value
    return f"{attr.name}={shown}"


def _node(node: ir.Node) -> str:
    outputs = ", ".join(o.name or "_" for o in node.outputs)
    inputs = ", ".join("_" if v is None else v.name or "?" for v in node.inputs)
    attributes = ", ".join(_attribute(node.attributes[name]) for name in sorted(node.attributes))
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{outputs} = {operator}{f'<{attributes}>' if attributes else ''}({inputs})"


def parse(text: str, seed: int = 0) -> ir.Model:
    """Read ONNX text (the `onnx.parser` language), where a weight may be `float[8,3,3,3] w = {seed}`.

    Seeded weights are drawn in order from a normal distribution (integers: 0 to 3) by `seed`.

    Raises:
        ModelError: when the text does not parse or the graph is not valid.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[Any]] = {}

    def draw(match: re.Match[str]) -> str:
        dtype, shape, name = match.groups()
        extent = [int(d) for d in shape.strip("[] ").split(",") if d.strip()]
        kind = _TEXT_DTYPES.get(dtype)
        if kind is None:
            raise ModelError(f"no seeded weights of type {dtype!r}; use one of {', '.join(_TEXT_DTYPES)}")
        if np.issubdtype(kind, np.integer):
            weights[name] = rng.integers(0, 4, extent).astype(kind)
        else:
            weights[name] = rng.standard_normal(extent).astype(kind)
        return f"{dtype}{shape} {name}"

    seeded = _SEEDED.sub(draw, text)
    try:
        proto = onnx.parser.parse_model(seeded)
    except (onnx.parser.ParseError, IndexError, RuntimeError) as error:  # the last two: a number too large
        raise ModelError(f"cannot read ONNX text: {one_line(error)}") from error
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    kept = [v for v in proto.graph.value_info if v.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return from_proto(proto, name="text")
