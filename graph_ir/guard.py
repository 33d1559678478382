# SPDX-License-Identifier: Apache-2.0
"""The import guard: what the IR would lose is carried, made explicit, or refused by name.

onnx-ir drops sparse initializers (leaving dangling inputs) and training_info, and doubles the metadata of
initializers; it cannot hold map types or sparse-tensor attributes. Measured in docs/decisions/0001.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from .errors import UnsupportedModelError
from .ops import STANDARD_DOMAINS, graphs_within, has_subgraph, is_standard, subgraphs, walk_graphs
from .protos import Parts

NOTES = "tersor.notes"
TRAINING_INFO = "tersor.training_info"


def notes(model: ir.Model) -> list[str]:
    """What was changed or left alone on import, a line each (in memory only)."""
    return cast("list[str]", model.meta.setdefault(NOTES, []))


@contextmanager
def quiet() -> Generator[None]:
    """Keep onnx-ir from logging what is raised as an error, or written as it was."""
    logger = logging.getLogger("onnx_ir.serde")
    was_off = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was_off


def before_import(parts: Parts) -> list[str]:
    """Make the message safe for the IR, in place; returns notes.

    Raises:
        UnsupportedModelError: for a map type or a sparse-tensor attribute, which the IR cannot hold.
        ValueError: for an impossible place of external data, and for a stride of 0: onnxruntime up to 1.27
            divides by it, which ends the process.
    """
    found: list[str] = []
    for node, attr in parts.attributes:
        if attr.type in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
            raise UnsupportedModelError(
                f"node {node.name or node.op_type!r}: attribute {attr.name!r} is a sparse tensor, "
                "which tersor cannot hold"
            )
        if attr.name == "strides" and 0 in attr.ints:
            raise ValueError(f"node {node.name or node.op_type!r}: attribute 'strides' holds a 0")
    for graph in parts.graphs:
        for info in (*graph.input, *graph.output, *graph.value_info):
            if _has_map(info.type):
                raise UnsupportedModelError(
                    f"value {info.name!r} has a map type, which tersor cannot hold; convert the model "
                    "without ZipMap (skl2onnx and onnxmltools: zipmap=False), for a tensor in its place"
                )
        for tensor in graph.initializer:
            for entry in tensor.external_data if tensor.data_location == onnx.TensorProto.EXTERNAL else ():
                if entry.key in ("offset", "length") and not entry.value.isdecimal():
                    raise ValueError(
                        f"tensor {tensor.name!r}: external {entry.key} {entry.value!r} is no size"
                    )
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse))
            found.append(f"sparse initializer {sparse.values.name!r} was made dense")
        del graph.sparse_initializer[:]
    return found


def has_external(parts: Parts) -> bool:
    """Whether any tensor, of weights or attributes, lies in another file."""
    outside = onnx.TensorProto.EXTERNAL
    if any(tensor.data_location == outside for tensor in parts.weights()):
        return True
    kinds = (onnx.AttributeProto.TENSOR, onnx.AttributeProto.TENSORS)
    held = [attr for _, attr in parts.attributes if attr.type in kinds]
    return any(tensor.data_location == outside for attr in held for tensor in (attr.t, *attr.tensors))


def after_import(model: ir.Model, proto: onnx.ModelProto, parts: Parts, found: list[str]) -> None:
    """Attach to the IR what import alone would lose."""
    model.meta[NOTES] = found
    if proto.training_info:
        model.meta[TRAINING_INFO] = [t.SerializeToString() for t in proto.training_info]
    if not any(tensor.metadata_props for tensor in parts.weights()):
        return
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.raw.metadata_props:
                tensor.metadata_props.clear()  # the raw proto is written back with its own


def after_export(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Re-attach to the exported proto what `after_import` carried."""
    for data in cast("list[bytes]", model.meta.get(TRAINING_INFO, [])):
        proto.training_info.add().ParseFromString(data)


def import_domains(model: ir.Model, parts: Parts, found: list[str]) -> None:
    """Import, as version 1, custom domains that nodes use and the file forgets (runtimes tolerate that)."""
    if parts.domains <= STANDARD_DOMAINS:
        return
    owners = [(model.graph, model.opset_imports)]
    owners += [(f.graph, f.opset_imports) for f in model.functions.values()]
    for outermost, imports in owners:
        for graph in graphs_within(outermost):
            nodes = list(graph)
            if imports.keys() | STANDARD_DOMAINS >= {node.domain for node in nodes}:
                continue
            for node in nodes:
                if node.domain in imports or is_standard(node) or node.op_identifier() in model.functions:
                    continue
                imports[node.domain] = 1
                found.append(f"domain {node.domain!r} had no opset import; version 1 was added")


def rename_shadows(model: ir.Model, parts: Parts, found: list[str]) -> None:
    """Rename values of bodies that hide an outer value: code moved between the two would go wrong."""
    if len(parts.graphs) == 1:
        return
    nested = [g for g in walk_graphs(model) if any(has_subgraph(n) for n in g)]
    taken = {name for graph in walk_graphs(model) for name in _names(graph)}
    outermost = {model.graph, *(f.graph for f in model.functions.values())}
    for graph in nested:
        if graph in outermost:
            _rename_shadows(graph, set(), taken, found)


def _names(graph: ir.Graph) -> Iterator[str]:
    yield from (v.name for v in graph.inputs if v.name)
    yield from graph.initializers
    yield from (o.name for node in graph for o in node.outputs if o.name)


def _rename_shadows(graph: ir.Graph, visible: set[str], taken: set[str], found: list[str]) -> None:
    """Rename what `graph` defines and `visible` already holds; `visible` is restored on return."""
    added: set[str] = set()

    def define(value: ir.Value) -> None:
        name = value.name
        if not name:
            return
        if name in visible and name not in added:
            number = 1
            while f"{name}_{number}" in taken:
                number += 1
            value.name = f"{name}_{number}"
            found.append(f"graph {graph.name!r}: {name!r} hid an outer value and was renamed {value.name!r}")
            name = value.name
            taken.add(name)
        if name not in visible:
            visible.add(name)
            added.add(name)

    for value in (*graph.inputs, *(v for v in graph.initializers.values() if not v.is_graph_input())):
        define(value)
    for node in graph:
        for body in subgraphs(node):
            _rename_shadows(body, visible, taken, found)
        for output in node.outputs:
            define(output)
    visible.difference_update(added)


def _has_map(type_proto: onnx.TypeProto) -> bool:
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return _has_map(type_proto.sequence_type.elem_type)
    if kind == "optional_type":
        return _has_map(type_proto.optional_type.elem_type)
    return kind == "map_type"


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    shape = tuple(int(d) for d in sparse.dims)
    values = np.asarray(numpy_helper.to_array(sparse.values))
    indices = np.asarray(numpy_helper.to_array(sparse.indices), np.int64)
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices[:, k] for k in range(len(shape)))] = values
    return numpy_helper.from_array(dense, sparse.values.name)
