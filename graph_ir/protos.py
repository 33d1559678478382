# SPDX-License-Identifier: Apache-2.0
"""One walk over a model's message, for all that looks at the message before and after import.

Asking the message is several times as quick as asking the IR that is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

_PLAIN = frozenset(
    {
        *(onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.STRING),
        *(onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS),
    }
)


@dataclass(frozen=True)
class Parts:
    """What a model's message holds, in all graphs and functions.

    Attributes:
        graphs: the main graph, and the bodies of its nodes and of the functions' nodes.
        attributes: (node, attribute) of each that holds more than numbers or text, and of all strides.
        domains: of all nodes.
    """

    graphs: list[onnx.GraphProto]
    attributes: list[tuple[onnx.NodeProto, onnx.AttributeProto]]
    domains: set[str]

    def weights(self) -> Iterator[onnx.TensorProto]:
        """The initializers of all graphs."""
        for graph in self.graphs:
            yield from graph.initializer


def parts_of(proto: onnx.ModelProto) -> Parts:
    """Walk the message once."""
    graphs: list[onnx.GraphProto] = []
    attributes: list[tuple[onnx.NodeProto, onnx.AttributeProto]] = []
    nodes = [node for function in proto.functions for node in function.node]
    domains: set[str] = set()
    waiting = [proto.graph]
    while True:
        domains.update([node.domain for node in nodes])
        for node in nodes:
            for attr in node.attribute:
                if attr.type in _PLAIN and attr.name != "strides":
                    continue
                attributes.append((node, attr))
                if attr.HasField("g"):  # the oldest files leave the attribute's type out
                    waiting.append(attr.g)
                waiting.extend(attr.graphs)
        if not waiting:
            return Parts(graphs, attributes, domains)
        graphs.append(waiting.pop())
        nodes = list(graphs[-1].node)
