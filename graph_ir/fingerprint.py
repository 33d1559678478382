# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: did it change, is this cached fact stale?

Values are numbered in order of definition, so internal names do not matter; names of inputs and outputs do.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx_ir as ir

from .ops import dims, subgraphs

if TYPE_CHECKING:
    Digest = hashlib.blake2b


def structure_fingerprint(model: ir.Model) -> str:
    """32 hex digits over operators, attributes, wiring, opsets, signature and weight shapes (not data)."""
    return _fingerprint(model, with_weights=False)


def fingerprint(model: ir.Model) -> str:
    """32 hex digits over the structure and every weight's bytes."""
    return _fingerprint(model, with_weights=True)


def _fingerprint(model: ir.Model, *, with_weights: bool) -> str:
    digest = hashlib.blake2b(digest_size=16)
    _put(digest, sorted((d or "ai.onnx", v) for d, v in model.opset_imports.items()))
    _hash_graph(digest, model.graph, {}, with_weights=with_weights)
    for identifier, function in model.functions.items():
        _put(digest, identifier, sorted(function.opset_imports.items()))
        _hash_graph(digest, function.graph, {}, with_weights=with_weights)
    return digest.hexdigest()


def _put(digest: Digest, *items: object) -> None:
    digest.update(repr(items).encode())


def _hash_tensor(digest: Digest, tensor: ir.TensorProtocol, *, with_weights: bool) -> None:
    _put(digest, int(tensor.dtype), tuple(tensor.shape.numpy()))
    if not with_weights:
        return
    if tensor.dtype == ir.DataType.STRING:
        _put(digest, tensor.numpy().tolist())
    else:
        digest.update(tensor.tobytes())


def _hash_graph(digest: Digest, graph: ir.Graph, numbers: dict[ir.Value, int], *, with_weights: bool) -> None:
    for value in graph.inputs:
        numbers[value] = len(numbers)
        _put(digest, "input", value.name, str(value.type), dims(value))
    used: list[ir.Value] = []
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in numbers:
                numbers[value] = len(numbers)
                if value.is_initializer():
                    used.append(value)
        wiring = tuple(None if v is None else numbers[v] for v in node.inputs)
        _put(digest, node.domain, node.op_type, node.overload, wiring, len(node.outputs))
        for name in sorted(node.attributes):
            attr = node.attributes[name]
            if attr.type == ir.AttributeType.TENSOR and not attr.is_ref():
                _put(digest, name)
                _hash_tensor(digest, attr.as_tensor(), with_weights=True)
            elif attr.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                _put(digest, name, attr.type, attr.ref_attr_name, str(attr.value))
        for output in node.outputs:
            numbers[output] = len(numbers)
        for body in subgraphs(node):
            _hash_graph(digest, body, numbers, with_weights=with_weights)
    for value in used:
        tensor = value.const_value
        if tensor is not None:
            _put(digest, numbers[value])
            _hash_tensor(digest, tensor, with_weights=with_weights)
    for output in graph.outputs:
        _put(digest, "output", output.name, numbers.get(output), str(output.type), dims(output))
