# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: did it change, is this cached fact stale?

Values are numbered in order of definition, so internal names do not matter; names of inputs and outputs do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import onnx_ir as ir

from .ops import dims, subgraphs

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Sequence

    Digest = hashlib.blake2b


def structure_fingerprint(model: ir.Model) -> str:
    """32 hex digits over operators, attributes, wiring, opsets, signature and weight shapes (not data)."""
    return _fingerprint(model, with_weights=False)


def fingerprint(model: ir.Model) -> str:
    """32 hex digits over the structure and every weight's bytes."""
    return _fingerprint(model, with_weights=True)


def _fingerprint(model: ir.Model, *, with_weights: bool) -> str:
    digest = _new_digest()
    _put(digest, sorted((d or "ai.onnx", v) for d, v in model.opset_imports.items()))
    for value in model.graph.inputs:
        _put(digest, "input", value.name, str(value.type), dims(value), value.is_initializer())
    _hash_graph(digest, model.graph, {}, with_weights=with_weights)
    for output in model.graph.outputs:
        _put(digest, "output", output.name, str(output.type), dims(output))
    for identifier, function in sorted(model.functions.items()):
        _put(digest, identifier, sorted(function.opset_imports.items()))
        for name, attr in sorted(function.attributes.items()):
            _hash_attribute(digest, name, attr)
        _hash_graph(digest, function.graph, {}, with_weights=with_weights)
    return digest.hexdigest()


def _new_digest() -> Digest:
    import hashlib  # takes longer to load than all of this folder

    return hashlib.blake2b(digest_size=16)


def _put(digest: Digest, *items: object) -> None:
    digest.update(repr(items).encode(errors="surrogatepass"))


def _hash_tensor(digest: Digest, tensor: ir.TensorProtocol, *, with_weights: bool) -> None:
    _put(digest, int(tensor.dtype), tuple(tensor.shape.numpy()))
    if not with_weights:
        return
    if tensor.dtype == ir.DataType.STRING:
        _put(digest, tensor.numpy().tolist())
    else:
        digest.update(tensor.tobytes())


def _hash_attribute(digest: Digest, name: str, attr: ir.Attr) -> None:
    _put(digest, name, int(attr.type), attr.ref_attr_name)
    if attr.is_ref() or attr.value is None or attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return
    if attr.type == ir.AttributeType.TENSOR:
        _hash_tensor(digest, attr.as_tensor(), with_weights=True)
    elif attr.type == ir.AttributeType.TENSORS:
        for tensor in attr.as_tensors():
            _hash_tensor(digest, tensor, with_weights=True)
    elif isinstance(attr.value, (list, tuple)):
        _put(digest, list(cast("Sequence[object]", attr.value)))
    else:
        _put(digest, attr.value)


def _hash_graph(digest: Digest, graph: ir.Graph, numbers: dict[ir.Value, int], *, with_weights: bool) -> None:
    """Hash a graph given the numbers of outer values; values are numbered as they are met."""
    weights: list[ir.Value] = []

    def number(value: ir.Value) -> int:
        if value not in numbers:
            numbers[value] = len(numbers)
            if value.is_initializer():
                weights.append(value)
        return numbers[value]

    for value in graph.inputs:
        number(value)
    _put(digest, "graph", len(graph.inputs))
    for node in graph:
        wiring = [None if v is None else number(v) for v in node.inputs]
        named = [o.name or None for o in node.outputs]
        given = [name is not None for name in _to_last(named)]
        _put(digest, node.domain, node.op_type, node.overload, _to_last(wiring), given)
        for name in sorted(node.attributes):
            _hash_attribute(digest, name, node.attributes[name])
        for body in subgraphs(node):
            _hash_graph(digest, body, numbers, with_weights=with_weights)
        for output in node.outputs:
            if output.name:
                number(output)
    _put(digest, "returns", tuple(number(output) for output in graph.outputs))
    for value in weights:
        if value.const_value is not None:
            _put(digest, numbers[value])
            _hash_tensor(digest, value.const_value, with_weights=with_weights)
    # Weights nothing reads count too, in an order that does not hang on their names.
    idle = [v.const_value for v in graph.initializers.values() if v not in numbers]
    _put(digest, sorted(_digest_of(t, with_weights=with_weights) for t in idle if t is not None))


def _to_last(items: Sequence[object]) -> list[object]:
    """The items up to the last that is given: what is left out at the end need not be said."""
    count = len(items)
    while count and items[count - 1] is None:
        count -= 1
    return list(items[:count])


def _digest_of(tensor: ir.TensorProtocol, *, with_weights: bool) -> str:
    digest = _new_digest()
    _hash_tensor(digest, tensor, with_weights=with_weights)
    return digest.hexdigest()
