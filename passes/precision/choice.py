# SPDX-License-Identifier: Apache-2.0
"""Which nodes may compute in another float type: each by itself, then together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np

from ...graph_ir import DataType, Model, Node, TensorType, Value, constant, is_constant
from ...graph_ir.ops import (
    has_reference_attribute,
    has_subgraph,
    input_at,
    is_op,
    is_random,
    is_standard,
    opset_of,
)
from ...graph_ir.origins import goes_by
from ..quantize.kinds import LINEAR, channel_axis

LARGEST = {DataType.FLOAT16: 65504.0, DataType.BFLOAT16: (2 - 2.0**-7) * 2.0**127}
# Unit of rounding relative to one, and the smallest normal number.
_PRECISION = {DataType.FLOAT16: (2.0**-10, 2.0**-14), DataType.BFLOAT16: (2.0**-7, 2.0**-126)}
_SCHEMA_TYPE = {
    DataType.FLOAT: "tensor(float)",
    DataType.FLOAT16: "tensor(float16)",
    DataType.BFLOAT16: "tensor(bfloat16)",
}
SINGLE = frozenset({DataType.FLOAT})

# Operators that stay float32, and why. What a runtime has no kernel for is that runtime's business.
BLOCKED: Mapping[str, str] = {
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), "int8 kernels take float32 scales"
    ),
    **dict.fromkeys(
        ("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
         "ReduceProd", "CumSum", "LpNormalization", "LRN"),
        "its sums or products outgrow 16 bits",
    ),
    **dict.fromkeys(
        ("GridSample", "AffineGrid", "RoiAlign", "NonMaxSuppression", "Range"),
        "positions need more digits than 16 bits have",
    ),
    "Cast": "its type is its purpose",
    "CastLike": "its type is its purpose",
}  # fmt: skip

# They move elements only: the type of what they move is the one that needs no Cast.
MOVING = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Gather",
        "GatherElements", "GatherND", "Expand", "Tile", "Identity", "DepthToSpace", "SpaceToDepth", "Pad",
        "Where", "ScatterND", "ScatterElements", "Compress",
    }
)  # fmt: skip

# Operators without a schema of ONNX that compute in the one float type of all they read and make.
GENERIC = frozenset(
    {
        ("", "SimplifiedLayerNormalization"),
        *(
            ("com.microsoft", name)
            for name in (
                "Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "FusedMatMul", "Gelu",
                "GroupQueryAttention", "MatMulNBits", "MultiHeadAttention", "QuickGelu", "RotaryEmbedding",
                "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
            )
        ),
    }
)  # fmt: skip

# What 16 bits are for; a group of neighbours without any of them is not worth its Casts.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"})


class Extent(Protocol):
    """The measured extremes of a value; `unsafe` says why they must not be trusted, empty when they may."""

    @property
    def min(self) -> float:
        """Smallest value seen."""
        ...

    @property
    def max(self) -> float:
        """Largest value seen."""
        ...

    @property
    def unsafe(self) -> str:
        """Why the value must stay float; empty when it need not."""
        ...


UNTYPED = "the type of an input is not known"


@dataclass
class Choice:
    """The nodes that become 16-bit, in graph order, and why the others with float values do not."""

    half: dict[Node, None] = field(default_factory=dict[Node, None])
    reasons: dict[Node, str] = field(default_factory=dict[Node, str])


@dataclass(frozen=True)
class Guard:
    """What a value may be.

    Attributes:
        dtype: FLOAT16 or BFLOAT16.
        margin: how many times what was measured must fit.
        extents: by value name; a value that is not there is taken to fit.
        exclude: labels or origins of nodes that stay float.
    """

    dtype: DataType
    margin: float
    extents: Mapping[str, Extent]
    exclude: Collection[str] = ()

    def value(self, value: Value) -> str | None:
        """Why a measured value does not fit; None when it does."""
        found = self.extents.get(value.name or "")
        if found is None:
            return None
        if found.unsafe:
            return f"{value.name!r} is unsafe: {found.unsafe}"
        most = max(-found.min, found.max)
        if most * self.margin > LARGEST[self.dtype]:
            return f"{value.name!r} reaches {most:.4g}"
        return None

    def constant(self, node: Node, index: int) -> str | None:
        """Why a constant input does not fit; None when it does.

        It underflows when all of a channel's weights lie below the normal numbers, where digits are lost,
        and still count beside its bias.
        """
        value = node.inputs[index]
        array = constant(value)
        if value is None or array is None or array.size == 0:
            return None
        size = np.abs(np.asarray(array, np.float64))
        if not np.isfinite(size).all():
            return f"the constant {value.name!r} is not finite"
        if size.max() > LARGEST[self.dtype]:
            return f"the constant {value.name!r} overflows"
        beside = np.zeros(1)
        rows = size.reshape(1, -1)
        if index == 1 and is_op(node, *LINEAR) and array.ndim > 1:
            axis = channel_axis(node) if node.op_type != "MatMul" else array.ndim - 1
            rows = np.moveaxis(size, axis, 0).reshape(array.shape[axis], -1)
            bias = constant(input_at(node, 2))
            if bias is not None and bias.size in (1, len(rows)):
                beside = np.abs(np.asarray(bias, np.float64)).reshape(-1)
        most = rows.max(axis=1)
        unit, tiny = _PRECISION[self.dtype]
        if ((most > unit * beside) & (most > 0) & (most < tiny)).any():
            return f"the constant {value.name!r} underflows"
        return None


def choose(model: Model, guard: Guard) -> Choice:
    """Choose among the nodes of the main graph; types must be inferred."""
    opset = opset_of(model)
    choice = Choice()
    for node in model.graph:
        floats = [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype == DataType.FLOAT]
        if not floats or all(is_constant(v) for v in node.outputs):
            continue
        reason = _refuse(node, opset, guard)
        if reason is None and not _follows(node, choice):
            reason = "what it moves is float"
        if reason is None:
            choice.half[node] = None
        else:
            choice.reasons[node] = reason
    _drop_light(choice)
    return choice


def _refuse(node: Node, opset: int, guard: Guard) -> str | None:
    if not is_standard(node):
        return f"operator {node.domain}.{node.op_type} is not known"
    if has_subgraph(node) or has_reference_attribute(node) or is_random(node):
        return "it has a body, a caller's attribute, or draws numbers"
    if goes_by(node, guard.exclude):
        return "`exclude` names it"
    if node.op_type in BLOCKED:
        return BLOCKED[node.op_type]
    if any(v is not None and v.dtype is None for v in node.inputs):
        return UNTYPED
    inputs, outputs = convertible(node, opset, guard.dtype)
    if not inputs or (not outputs and any(o.dtype == DataType.FLOAT for o in node.outputs)):
        return f"{node.op_type} of opset {opset} has no {guard.dtype.name.lower()} form"
    if any(not o.name for o in node.outputs[: max(outputs, default=0) + 1]):
        return "it leaves an output out"
    for index in inputs:
        value = node.inputs[index]
        assert value is not None
        reason = guard.constant(node, index) if is_constant(value) else guard.value(value)
        if reason is not None:
            return reason
    return next(filter(None, (guard.value(node.outputs[i]) for i in outputs)), None)


def convertible(
    node: Node, opset: int, dtype: DataType, sources: Collection[DataType] = SINGLE
) -> tuple[list[int], list[int]]:
    """Indices of the inputs and outputs of a type in `sources` that the operator allows to be `dtype`."""
    if not is_standard(node):  # those of `GENERIC` compute in one float type throughout
        known = (node.domain, node.op_type) in GENERIC
        given = [i for i, value in enumerate(node.inputs) if known and value and value.dtype in sources]
        return given, [i for i, value in enumerate(node.outputs) if known and value.dtype in sources]
    found = _schema(node.op_type, opset, _SCHEMA_TYPE[dtype])
    if found is None:
        return [], []
    inputs, outputs, variadic = found

    def pick(values: Sequence[Value | None], allowed: tuple[bool, ...]) -> list[int]:
        picked: list[int] = []
        for index, value in enumerate(values):
            formal = min(index, len(allowed) - 1) if variadic else index
            known = value is not None and isinstance(value.type, TensorType) and value.dtype in sources
            if known and formal < len(allowed) and allowed[formal]:
                picked.append(index)
        return picked

    stashed = node.op_type == "LayerNormalization"  # its statistics have a type of their own
    return pick(node.inputs, inputs), pick(node.outputs, outputs[:1] if stashed else outputs)


@cache
def _schema(op_type: str, opset: int, kind: str) -> tuple[tuple[bool, ...], tuple[bool, ...], bool] | None:
    """For each formal input and output, whether it may be of the type; and whether the last ones repeat."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    free = {c.type_param_str for c in schema.type_constraints if kind in c.allowed_type_strs}
    ports = (*schema.inputs, *schema.outputs)
    variadic = any(p.option == onnx.defs.OpSchema.FormalParameterOption.Variadic for p in ports)
    return (
        tuple(p.type_str in free for p in schema.inputs),
        tuple(p.type_str in free for p in schema.outputs),
        variadic,
    )


def _follows(node: Node, choice: Choice) -> bool:
    """Whether a node that moves or only looks at its input finds it in 16 bits; True for all others."""
    floats = [v for v in node.inputs if v is not None and v.dtype == DataType.FLOAT]
    made = [v for v in floats if not is_constant(v)]
    if not any(o.dtype == DataType.FLOAT for o in node.outputs):  # Shape, comparisons, ArgMax
        return bool(made) and all(v.producer() in choice.half for v in made)
    if node.op_type not in MOVING:
        return True
    if node.op_type == "Gather":
        return is_constant(floats[0]) or floats[0].producer() in choice.half
    return not made or any(v.producer() in choice.half for v in made)


def _drop_light(choice: Choice) -> None:
    """Leave groups of neighbours float that hold no heavy node and no constant table."""
    for group in neighbours(choice.half):
        if not any(n.op_type in HEAVY or (n.op_type == "Gather" and is_constant(n.inputs[0])) for n in group):
            for node in group:
                del choice.half[node]
                choice.reasons[node] = "nothing near it is worth the Casts"


def neighbours(nodes: Iterable[Node]) -> list[list[Node]]:
    """Parts the nodes into groups that hand values to each other, in their order."""
    import networkx as nx

    place = {node: index for index, node in enumerate(dict.fromkeys(nodes))}
    net: nx.Graph[Node] = nx.Graph()
    net.add_nodes_from(place)
    for node in place:
        for output in node.outputs:
            net.add_edges_from((node, user) for user, _ in output.uses() if user in place)
    return [sorted(group, key=place.__getitem__) for group in nx.connected_components(net)]
