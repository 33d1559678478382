# SPDX-License-Identifier: Apache-2.0
"""Which source nodes each kernel of an optimized graph stands for.

The runtime keeps a node's name when it replaces the node, alone or within a longer name (`conv_token_1`,
`fc/MatMulAddFusion`, `fused fc`), and mostly keeps the names of the tensors. So a copy of the model whose
nodes carry unique marks as names comes back with the marks on the kernels; a kernel without one is found by
the tensor that it makes. Two gaps are filled from what lies around: a convolution that took an activation in
is called after one of the two, and the parts of an operator spelled as a function have no names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .graph_view import Scope, scopes_of

if TYPE_CHECKING:
    import onnx

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_LINEAR_KERNELS = LINEAR | {"FusedConv", "FusedGemm", "FusedMatMul", "NhwcFusedConv", "QLinearConv", "QGemm"}
_LAYOUTS = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
_BODY = "_inlfunc_"  # prefix of tensors that come from an operator spelled as a function
_WIDENED = "InsertedPrecisionFreeCast_"  # prefix of float16 tensors that are computed in float32
_MARK = re.compile(r"@(\d+)@")


@dataclass(frozen=True, eq=False)
class SourceNode:
    """A node of the model as it was given: `label` is its own name (or `Op(output)` when it has none)."""

    index: int
    label: str
    node: onnx.NodeProto
    scope: Scope


@dataclass(frozen=True, eq=False)
class Kernel:
    """A node of the optimized graph and the source nodes it stands for (none: the runtime added it)."""

    node: onnx.NodeProto
    scope: Scope
    sources: tuple[int, ...]


def mark(index: int) -> str:
    """The name under which a source node goes to the runtime."""
    return f"@{index}@"


def unmarked(text: str, sources: Sequence[SourceNode]) -> str:
    """The runtime's words with the nodes' own names in place of their marks."""
    return _MARK.sub(lambda found: sources[int(found[1])].label, text)


def charge(proto: onnx.ModelProto, sources: Sequence[SourceNode], folder: Path) -> list[Kernel]:
    """Charge every node of the optimized graph to source nodes that went in under their marks."""
    by_output = {name: item for item in sources for name in item.node.output if name}
    index_of = {id(item.node): item.index for item in sources}
    found: list[Kernel] = []
    taken: set[int] = set()
    views: list[tuple[Scope, list[set[int]]]] = []
    for scope in scopes_of(proto, folder):
        marks = [_marked(node, by_output) for node in scope.graph.node]
        taken.update(index for item in marks for index in item)
        views.append((scope, marks))
    for scope, marks in views:
        _unnamed(scope, marks, by_output, frozenset(taken))
        for node, own in zip(scope.graph.node, marks, strict=True):
            linear = node.op_type in _LINEAR_KERNELS
            inside = _swallowed(own, sources, index_of, taken) if linear else set[int]()
            inside |= _activation(node, own, sources, index_of, taken)
            found.append(Kernel(node, scope, tuple(sorted(own | inside))))
    return found


def _marked(node: onnx.NodeProto, by_output: dict[str, SourceNode]) -> set[int]:
    marks = {int(found) for found in _MARK.findall(node.name)}
    # A kernel of the blocked layout is called after the tensor that its source made.
    for name in [*node.output, node.name.removesuffix("_nchwc")]:
        item = by_output.get(name.removeprefix(_WIDENED))
        # A change of layout that the runtime added takes over the name of the tensor behind it.
        if item is not None and (node.op_type not in _LAYOUTS or item.node.op_type == node.op_type):
            marks.add(item.index)
    return marks


def _unnamed(
    scope: Scope, marks: list[set[int]], by_output: dict[str, SourceNode], taken: frozenset[int]
) -> None:
    """Charge the nameless parts of a function's body, from its end backwards, to the node it spells out."""
    nodes = scope.graph.node
    position = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    ahead: list[set[int]] = [set() for _ in nodes]  # what a node hands back to the nameless ones before it
    for i in range(len(nodes) - 1, -1, -1):
        node = nodes[i]
        readers = [
            position[reader.output[0]]
            for name in node.output
            for reader in scope.consumers.get(name, [])
            if reader.output and reader.output[0] in position
        ]
        behind = {index for j in readers for index in ahead[j]}
        if node.op_type in _LAYOUTS:
            item = by_output.get(node.output[0])
            ahead[i] = behind if item is None or item.index in taken else behind | {item.index}
        elif not marks[i]:
            if node.output and node.output[0].startswith(_BODY):
                behind |= {index for j in readers for index in marks[j]}
            marks[i] |= behind
            ahead[i] = behind


def _activation(
    node: onnx.NodeProto,
    own: set[int],
    sources: Sequence[SourceNode],
    index_of: dict[int, int],
    taken: set[int],
) -> set[int]:
    """The activation that a kernel named after its linear node took in, as its attribute says."""
    name = next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "activation"), "")
    found = {
        index_of[id(readers[0])]
        for item in (sources[index] for index in own)
        if name and item.node.op_type in LINEAR
        for readers in [item.scope.readers(item.node.output[0])]
        if len(readers) == 1 and readers[0].op_type == name
    } - taken
    taken |= found
    return found


def _swallowed(
    own: set[int], sources: Sequence[SourceNode], index_of: dict[int, int], taken: set[int]
) -> set[int]:
    """The linear node, and what lies between, that a linear kernel named after a later node stands for."""
    if not own or any(sources[index].node.op_type in LINEAR for index in own):
        return set()
    item = sources[min(own)]
    path: set[int] = set()
    node: onnx.NodeProto | None = item.node
    while node is not None and node.op_type not in LINEAR:
        makers = (item.scope.producer(name) for name in node.input if name)
        node = next((m for m in makers if m is not None and index_of[id(m)] not in taken), None)
        if node is not None:
            path.add(index_of[id(node)])
    if node is None:
        return set()
    taken |= path
    return path
