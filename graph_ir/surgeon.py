# SPDX-License-Identifier: Apache-2.0
"""A bridge to onnx-graphsurgeon and back, for surgery scripts and TensorRT recipes.

graphsurgeon keeps nodes, tensors and constants, and loses much of the rest: metadata and documentation
everywhere, the model's domain and version, quantization annotations, training information, denotations,
attributes of some kinds, and an initializer's place among the inputs. Whatever still exists when the graph
comes back, by name, gets it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from .errors import UnsupportedModelError, UsageError
from .io import from_proto, to_proto

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    _Entries = RepeatedCompositeFieldContainer[onnx.StringStringEntryProto]

_LOST_KINDS = frozenset(
    {
        onnx.AttributeProto.TENSORS,
        onnx.AttributeProto.GRAPHS,
        onnx.AttributeProto.TYPE_PROTO,
        onnx.AttributeProto.TYPE_PROTOS,
    }
)
_MODEL_FIELDS = ("domain", "model_version", "doc_string", "producer_name", "producer_version")


def to_surgeon(model: ir.Model) -> gs.Graph:
    """Give the model to graphsurgeon; nodes without a name of their own get one.

    Args:
        model: left unchanged.

    Raises:
        UsageError: onnx-graphsurgeon is not installed.
        UnsupportedModelError: a sequence, optional or sparse type, on which graphsurgeon fails.
    """
    surgeon = _surgeon()
    proto = _named(model)
    for graph in _graphs(proto):
        for info in (*graph.input, *graph.output, *graph.value_info):
            kind = info.type.WhichOneof("value")
            if kind not in (None, "tensor_type"):
                raise UnsupportedModelError(
                    f"value {info.name!r} has a {kind}, which graphsurgeon cannot hold"
                )
        for node in graph.node:
            kept = [a for a in node.attribute if not _is_lost(a)]
            if len(kept) != len(node.attribute):
                copies = [_copy(a) for a in kept]
                del node.attribute[:]
                node.attribute.extend(copies)
    return surgeon.import_onnx(proto)


def from_surgeon(graph: gs.Graph, original: ir.Model) -> ir.Model:
    """Take a graph back from graphsurgeon.

    Args:
        graph: edited or not; made by `to_surgeon`.
        original: the model it was made from; what graphsurgeon lost is taken from it, by name.

    Raises:
        UsageError: onnx-graphsurgeon is not installed.
        ModelError: the edited graph is not valid.
    """
    exported: onnx.ModelProto = _surgeon().export_onnx(graph)
    source = _named(original)
    exported.ir_version = source.ir_version
    for name in _MODEL_FIELDS:
        if source.HasField(name):
            setattr(exported, name, getattr(source, name))
    _extend_entries(exported.metadata_props, source.metadata_props)
    exported.training_info.extend(source.training_info)
    _restore_defaults(exported.graph, source.graph)
    by_path = {g.name: g for g in _graphs(source)}
    nodes = {n.name: n for g in _graphs(source) for n in g.node}
    infos = {i.name: i for g in _graphs(source) for i in (*g.input, *g.output, *g.value_info)}
    for inner in _graphs(exported):
        _restore_graph(inner, by_path.get(inner.name), nodes, infos)
    return from_proto(exported, name="graphsurgeon's model")


def _surgeon() -> Any:
    try:
        import onnx_graphsurgeon
    except ImportError as error:
        raise UsageError("onnx-graphsurgeon is missing; install tersor[graphsurgeon]") from error
    return onnx_graphsurgeon


def _named(model: ir.Model) -> onnx.ModelProto:
    """Export with a unique name for every node, the same on each call."""
    proto = to_proto(model)
    taken = {n.name for g in _graphs(proto) for n in g.node}
    seen: set[str] = set()
    for graph in _graphs(proto):
        for node in graph.node:
            if node.name and node.name not in seen:
                seen.add(node.name)
                continue
            base = node.name or f"{node.op_type}_{next((o for o in node.output if o), 'node')}"
            name, number = base, 0
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            node.name = name
            taken.add(name)
            seen.add(name)
    return proto


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    stack = [proto.graph]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            stack.extend(a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)


def _is_lost(attribute: onnx.AttributeProto) -> bool:
    """Whether graphsurgeon drops the attribute or fails on it."""
    if attribute.type in _LOST_KINDS:
        return True
    if attribute.type == onnx.AttributeProto.INTS:
        return not attribute.ints
    if attribute.type == onnx.AttributeProto.FLOATS:
        return not attribute.floats
    if attribute.type == onnx.AttributeProto.STRINGS:
        return not attribute.strings or not all(_is_text(s) for s in attribute.strings)
    return attribute.type == onnx.AttributeProto.STRING and not _is_text(attribute.s)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _copy(attribute: onnx.AttributeProto) -> onnx.AttributeProto:
    made = onnx.AttributeProto()
    made.CopyFrom(attribute)
    return made


def _extend_entries(target: _Entries, source: _Entries) -> None:
    """Add the string pairs the target has no key for."""
    have = {entry.key for entry in target}
    target.extend(entry for entry in list(source) if entry.key not in have)


def _restore_defaults(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Bring back weights nothing reads, and list weights as inputs where they were, in the original order."""
    read = {name for inner in _graphs(onnx.ModelProto(graph=source)) for n in inner.node for name in n.input}
    have = {t.name for t in graph.initializer}
    graph.initializer.extend(t for t in source.initializer if t.name not in have and t.name not in read)
    weights = {t.name for t in graph.initializer}
    present = {i.name: i for i in graph.input}
    ordered: list[onnx.ValueInfoProto] = []
    for info in source.input:
        if info.name in present:
            ordered.append(present.pop(info.name))
        elif info.name in weights:
            ordered.append(info)
    copies = [onnx.ValueInfoProto.FromString(i.SerializeToString()) for i in (*ordered, *present.values())]
    del graph.input[:]
    graph.input.extend(copies)


def _restore_graph(
    graph: onnx.GraphProto,
    source: onnx.GraphProto | None,
    nodes: dict[str, onnx.NodeProto],
    infos: dict[str, onnx.ValueInfoProto],
) -> None:
    if source is not None:
        graph.doc_string = source.doc_string
        _extend_entries(graph.metadata_props, source.metadata_props)
        tensors = {t.name: t for t in source.initializer}
        for tensor in graph.initializer:
            if tensor.name in tensors:
                tensor.doc_string = tensors[tensor.name].doc_string
                _extend_entries(tensor.metadata_props, tensors[tensor.name].metadata_props)
        made = {o for n in graph.node for o in n.output} | {
            i.name for i in (*graph.input, *graph.initializer)
        }
        graph.quantization_annotation.extend(
            a for a in source.quantization_annotation if a.tensor_name in made
        )
    for info in (*graph.input, *graph.output, *graph.value_info):
        was = infos.get(info.name)
        if was is None:
            continue
        info.doc_string = was.doc_string
        _extend_entries(info.metadata_props, was.metadata_props)
        if was.type.SerializeToString() != info.type.SerializeToString() and _same_form(was.type, info.type):
            info.type.CopyFrom(was.type)
    for node in graph.node:
        before = nodes.get(node.name)
        if before is None or before.op_type != node.op_type:
            continue
        node.doc_string = before.doc_string
        _extend_entries(node.metadata_props, before.metadata_props)
        have = {a.name for a in node.attribute}
        documented = {a.name: a.doc_string for a in before.attribute}
        for attribute in node.attribute:
            attribute.doc_string = documented.get(attribute.name, "")
        node.attribute.extend(a for a in before.attribute if a.name not in have and _is_lost(a))


def _same_form(a: onnx.TypeProto, b: onnx.TypeProto) -> bool:
    """Whether two tensor types agree in element type and dimensions (denotations aside)."""
    left, right = a.tensor_type, b.tensor_type
    if left.elem_type != right.elem_type or left.HasField("shape") != right.HasField("shape"):
        return False
    return [(d.dim_value, d.dim_param) for d in left.shape.dim] == [
        (d.dim_value, d.dim_param) for d in right.shape.dim
    ]
