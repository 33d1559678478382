# SPDX-License-Identifier: Apache-2.0
"""Cut some nodes out of a model as a model of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from .ops import constant_tensor


def extract_constant_nodes(
    nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], opsets: Mapping[str, int], ir_version: int
) -> onnx.ModelProto:
    """A proto without inputs that computes `outputs` from constants alone.

    Args:
        nodes: in topological order, from any graphs of one model; every input is a constant or made by one of
        them.
        outputs: values the nodes make.
        opsets: opset imports of the model or function the nodes come from.
        ir_version: of the model.
    """
    proto = onnx.ModelProto(ir_version=ir_version)
    for domain, version in sorted(opsets.items()):
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    stored: set[str] = set()
    made = {output for node in nodes for output in node.outputs}
    for node in nodes:
        proto.graph.node.append(ir.serde.serialize_node(node))
        for value in node.inputs:
            if value is None or value in made or value.name in stored:
                continue
            tensor = constant_tensor(value)
            if tensor is None:
                raise ValueError(f"{value.name!r} is not constant")
            stored.add(value.name or "")
            written = proto.graph.initializer.add()
            written.CopyFrom(_in_memory(tensor))
            written.name = value.name or ""
    proto.graph.output.extend(onnx.ValueInfoProto(name=value.name or "") for value in outputs)
    return proto


def _in_memory(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    written = ir.serde.serialize_tensor(tensor)
    if written.external_data:
        del written.external_data[:]
        written.data_location = onnx.TensorProto.DEFAULT
        written.raw_data = tensor.tobytes()
    return written
